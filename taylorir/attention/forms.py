"""Softmax attention, and TaylorShift attention in two forms: direct (quadratic) and efficient (linear in N).

The functions here are the definitions. What makes them fast (chunks, recomputation in backward, kernels for
GPUs) lives in ``taylorir.attention.kernels`` and computes the same numbers.

Shape legend
    ...  any number of batch axes (images, windows)
    H    heads
    N    tokens of a window
    d    width of a head of q and k (``head_dim``); that of v is d_v
    F    features of a token: 1 + d + d (d + 1) / 2
    q, k [..., H, N, d];  v, y [..., H, N, d_v];  mask [..., H, N, N];  regions [..., N];  temperature [H]

Symbols: tau is the temperature, TaylorShift's code writes it as a factor of q; |q| is the Euclidean norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.attention.kernels.arguments import (
    check_bias,
    check_mask,
    check_qkv,
    check_regions,
    check_temperature,
)
from taylorir.attention.kernels.backend import uses_triton
from taylorir.attention.kernels.chunked import taylor_efficient_chunked
from taylorir.attention.kernels.direct import taylor_direct_blocked
from taylorir.attention.kernels.precision import compute_dtype, without_autocast
from taylorir.attention.kernels.rows import EPSILON
from taylorir.attention.kernels.segments import in_segments
from taylorir.attention.kernels.small import is_small, taylor_direct_small


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Attention as in SwinIR, with all N x N weights written out (:eq:`eq-softmax`).

    y = softmax(q k^T / sqrt(d) + bias) v

    Args:
        q, k: [..., H, N, d].
        v: [..., H, N, d_v].
        bias: added to the scores, broadcast to [..., H, N, N].
        mask: boolean, True = may attend, broadcast to [..., H, N, N]; a token that may attend to none gets 0.

    Returns:
        [..., H, N, d_v] of the dtype of q; float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device.
    """
    q, k, v = check_qkv(q, k, v)
    check_bias(bias, q)
    check_mask(mask, q)
    dtype = compute_dtype(q)
    with without_autocast(q):
        scores = (q.to(dtype) @ k.to(dtype).mT) * q.shape[-1] ** -0.5  # [..., H, N, N]
        if bias is not None:
            scores = scores + bias.to(dtype)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(dtype).min)
        weights = torch.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights * mask
        return (weights @ v.to(dtype)).to(q.dtype)


def taylor_direct(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    scale_output: bool = False,
    order: int = 2,
) -> Tensor:
    """TaylorShift attention, all N x N weights written out (:eq:`eq-taylor-softmax`, :eq:`eq-direct`).

    x = tau (q / |q|) . (k / |k|),   w = 1 + x + x^2 / 2,   y = (sum_j w_j v_j) / (sum_j w_j)

    Args:
        q, k: [..., H, N, d], normalised inside; a zero vector stays zero and has weight 1 with every token.
        v: [..., H, N, d_v].
        temperature: tau, a float or a tensor [H]: the largest |x|.
        mask: boolean, True = may attend, broadcast to [..., H, N, N]; a token that may attend to none gets 0.
        scale_output: multiply by sqrt(N / d), TaylorShift's ``output_normalized``.
        order: last power of the series: 2, 4 or 6. Odd orders are negative somewhere, so are no weights.

    Returns:
        [..., H, N, d_v] of the dtype of q; float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device, or an odd order.
    """
    q, k, v = check_qkv(q, k, v)
    check_mask(mask, q)
    _check_order(order)
    dtype = compute_dtype(q)
    tau = check_temperature(temperature, q, dtype)[:, None, None]
    with without_autocast(q):
        scores = tau * (_unit(q.to(dtype)) @ _unit(k.to(dtype)).mT)  # [..., H, N, N]
        weights = sum(scores**n / math.factorial(n) for n in range(1, order + 1)) + 1
        if mask is not None:
            weights = weights * mask
        total = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(total == 0, 1, total)
        return (weights @ v.to(dtype) * _output_scale(q, scale_output)).to(q.dtype)


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

    With features f such that f(q) . f(k) = 1 + x + x^2 / 2, the sum over keys is taken once for all queries:

    S = sum_j f(k_j) [v_j, 1]^T,   [a, b] = f(q)^T S,   y = a / b

    Args:
        q, k, v, temperature, scale_output: as in :func:`taylor_direct`.
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
    scale = _output_scale(q, scale_output)
    if uses_triton(backend, q, v):
        from taylorir.attention.kernels.triton_taylor import taylor_efficient_triton

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
    uses_triton(backend, q, v)
    regions = check_regions(regions, q)
    scale = _output_scale(q, scale_output)
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
    d = _check_head_dim(head_dim)
    return d * d + d + 1


def crossover_memory(head_dim: int) -> int:
    """N1: the smallest N at which the efficient form holds no more numbers than the direct one.

    Counts of the published form: direct d N + 2 N^2, efficient d^2 (d + 1) + 2 d N + (d + 1) N + d^2 N
    (:eq:`eq-crossover-memory`).
    """
    d = _check_head_dim(head_dim)
    return math.ceil((d * d + 2 * d + 1 + math.sqrt(d**4 + 12 * d**3 + 14 * d**2 + 4 * d + 1)) / 4)


def _check_head_dim(head_dim: int) -> int:
    if not isinstance(head_dim, int) or head_dim < 1:
        raise ValueError(f"head_dim must be an integer of at least 1, got {head_dim!r}")
    return head_dim


def _check_order(order: int) -> None:
    if order in (1, 3, 5):
        raise ValueError(
            f"order must be even (2, 4 or 6), got {order}: a Taylor polynomial of odd order turns negative "
            "for negative scores, so its values are no weights"
        )
    if order not in (2, 4, 6):
        raise ValueError(f"order must be 2, 4 or 6, got {order!r}")


def _unit(x: Tensor) -> Tensor:
    """x / |x|; zero, with zero gradient, where |x| is not above epsilon."""
    square = (x * x).sum(-1, keepdim=True)
    safe = square > EPSILON**2
    return x * torch.where(safe, torch.where(safe, square, 1).rsqrt(), 0)


def _output_scale(q: Tensor, scale_output: bool) -> float:
    return math.sqrt(q.shape[-2] / q.shape[-1]) if scale_output else 1.0
