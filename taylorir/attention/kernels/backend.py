"""Which implementation of the efficient form runs."""

from __future__ import annotations

from torch import Tensor


def uses_triton(backend: str, q: Tensor, v: Tensor) -> bool:
    """Whether the Triton kernels serve: for CUDA tensors that they take, unless forced either way.

    Args:
        backend: "auto", "torch" or "triton".
        q, v: the tensors, whose device, dtype and widths decide.

    Raises:
        ValueError: another name, or "triton" where the kernels cannot run.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'triton', got {backend!r}")
    if backend == "torch" or (backend == "auto" and q.device.type != "cuda"):
        return False
    from taylorir.attention.kernels import triton_taylor

    if backend == "auto":
        return triton_taylor.is_available() and triton_taylor.supports(q, v)
    if not triton_taylor.is_available():
        raise ValueError(
            f"backend 'triton' needs the package triton and a GPU (or TRITON_INTERPRET=1), got q on "
            f"{q.device}; use 'auto' or 'torch'"
        )
    return True
