"""What people call: TaylorShift attention linear in N, the choice of the cheaper form, the crossovers.

What is computed is defined in :mod:`taylorir.attention.reference`; what makes it fast (chunks, recomputation
in backward, kernels for GPUs) is in ``kernels``. Shapes as there.
"""

from __future__ import annotations

import math

from torch import Tensor

from taylorir.attention.kernels.checks import (
    check_head_dim,
    check_qkv,
    check_regions,
    check_temperature,
    compute_dtype,
)
from taylorir.attention.kernels.direct import is_small, taylor_direct_blocked, taylor_direct_small
from taylorir.attention.kernels.efficient import taylor_efficient_chunked
from taylorir.attention.kernels.segments import in_segments
from taylorir.attention.reference import output_scale


def taylor_efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | None = None,
    scale_output: bool = False,
    backend: str = "auto",
) -> Tensor:
    """TaylorShift attention in time and memory linear in N (:eq:`eq-efficient`, :eq:`eq-state`).

    The sum over keys is taken once for all queries; :func:`taylorir.attention.taylor_sums` reads like
    the equations.

    Args:
        q, k, v, temperature, scale_output: as in :func:`taylorir.attention.taylor_direct`.
        regions: integer labels [..., N], broadcast over the batch axes, one for all heads; tokens attend
            within equal labels only (:eq:`eq-regions`).
        backend: "torch"; "triton", kernels for GPUs; or "auto", triton for CUDA tensors where it can serve.

    Returns:
        [..., H, N, d_v] of the dtype of q; sums are taken in float32 at least.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device, or a missing backend.
    """
    q, k, v = check_qkv(q, k, v)
    regions = check_regions(regions, q)
    tau = check_temperature(temperature, q, compute_dtype(q))
    scale = output_scale(q, scale_output)
    if _uses_triton(backend, q, v):
        from taylorir.attention.kernels.triton_operator import taylor_efficient_triton

        return taylor_efficient_triton(q, k, v, tau, regions) * scale
    return in_segments(taylor_efficient_chunked, q, k, v, tau, regions, scale)


def taylor_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | None = None,
    scale_output: bool = False,
    crossover: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """TaylorShift attention in the cheaper form: direct for N below the crossover, efficient from it on.

    Args:
        q, k, v, temperature, regions, scale_output: as in :func:`taylor_efficient`.
        crossover: the number of tokens from which the efficient form is taken, e.g. a measured one;
            default :func:`crossover_flops` of d.
        backend: of the efficient form; the direct one runs in plain PyTorch, in blocks that are not stored.

    Returns:
        [..., H, N, d_v] of the dtype of q.

    Raises:
        TypeError, ValueError: as in :func:`taylor_efficient`.
    """
    q, k, v = check_qkv(q, k, v)
    if q.shape[-2] >= (crossover_flops(q.shape[-1]) if crossover is None else crossover):
        return taylor_efficient(
            q, k, v, temperature=temperature, regions=regions, scale_output=scale_output, backend=backend
        )
    _uses_triton(backend, q, v)
    regions = check_regions(regions, q)
    scale = output_scale(q, scale_output)
    small = regions is None and is_small(q)
    if small and type(temperature) is float:  # which costs nothing, where a tensor would cost a call
        return taylor_direct_small(q, k, v, temperature, scale)
    tau = check_temperature(temperature, q, compute_dtype(q))
    if small:
        return taylor_direct_small(q, k, v, tau, scale)
    return in_segments(taylor_direct_blocked, q, k, v, tau, regions, scale)


def crossover_flops(head_dim: int) -> int:
    """N0: the smallest N at which the efficient form takes no more operations than the direct one.

    Counts of the published form, all d^2 products as features: direct N^2 (4 d + 6), efficient
    N (4 d^3 + 10 d^2 + 9 d + 4), so N0 = d^2 + d + 1 (:eq:`eq-crossover-flops`).
    """
    d = check_head_dim(head_dim)
    return d * d + d + 1


def crossover_memory(head_dim: int) -> int:
    """N1: the smallest N at which the efficient form holds no more numbers than the direct one.

    Counts of the published form: direct d N + 2 N^2, efficient d^2 (d + 1) + 2 d N + (d + 1) N + d^2 N
    (:eq:`eq-crossover-memory`).
    """
    d = check_head_dim(head_dim)
    return math.ceil((d * d + 2 * d + 1 + math.sqrt(d**4 + 12 * d**3 + 14 * d**2 + 4 * d + 1)) / 4)


def _uses_triton(backend: str, q: Tensor, v: Tensor) -> bool:
    """Whether the Triton kernels serve: for CUDA tensors that they take, unless forced either way.

    Raises:
        ValueError: an unknown backend, or "triton" where its kernels cannot run.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'triton', got {backend!r}")
    if backend == "torch" or (backend == "auto" and q.device.type != "cuda"):
        return False
    from taylorir.attention.kernels import triton_operator

    if backend == "auto":
        return triton_operator.is_available() and triton_operator.supports(q, v)
    if not triton_operator.is_available():
        raise ValueError(
            f"backend 'triton' needs the package triton and a GPU (or TRITON_INTERPRET=1), got q on "
            f"{q.device}; use 'auto' or 'torch'"
        )
    return True
