"""Which implementation of the efficient form runs."""

from __future__ import annotations

from torch import Tensor


def uses_triton(backend: str, q: Tensor) -> bool:
    """Whether the Triton kernels serve: for CUDA tensors where they are available, unless forced either way.

    Args:
        backend: "auto", "torch" or "triton".
        q: the tensor whose device decides.

    Raises:
        ValueError: another name, or "triton" where the kernels cannot run.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'triton', got {backend!r}")
    if backend == "torch" or (backend == "auto" and q.device.type != "cuda"):
        return False
    try:
        from taylorir.kernels.triton_taylor import is_available, supports
    except ImportError:
        available = False
    else:
        available = is_available() and (backend == "triton" or supports(q))
    if backend == "triton" and not available:
        raise ValueError(
            f"backend 'triton' needs the package triton and a GPU, or TRITON_INTERPRET=1, for q on {q.device}; "
            "use 'auto' or 'torch'"
        )
    return available
