"""The definitions, to read: softmax attention, and TaylorShift in its direct form and in its efficient one.

Plain PyTorch in the paper's symbols, differentiable as often as one likes. Whatever is fast
(:mod:`taylorir.attention.operator`) computes what is written here, and is compared with it.

Shape legend
    ...  any number of batch axes (images, windows)
    H    heads
    N    queries of a window: its tokens
    M    keys of a window: the same tokens, unless attention is across
    d    width of a head of q and k (``head_dim``); that of v is d_v
    F    features of a token: 1 + d + d (d + 1) / 2
    q [..., H, N, d];  k [..., H, M, d];  v [..., H, M, d_v];  y [..., H, N, d_v]
    mask [..., H, N, M];  regions [..., N] (and [..., M]);  temperature [H]

Symbols: tau is the temperature, TaylorShift's code writes it as a factor of q; |q| is the Euclidean norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.attention.kernels.checks import (
    check_bias,
    check_mask,
    check_order,
    check_qkv,
    check_regions,
    check_temperature,
    compute_dtype,
    without_autocast,
)

EPSILON = 1e-12
"""A vector of no greater norm counts as zero: its unit vector and its gradient are zero."""


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Attention as in SwinIR, with all N x M weights written out (:eq:`eq-softmax`).

    y = softmax(q k^T / sqrt(d) + bias) v

    Args:
        q: [..., H, N, d].
        k: [..., H, M, d].
        v: [..., H, M, d_v].
        bias: added to the scores, broadcast to [..., H, N, M].
        mask: boolean, True = may attend, broadcast to [..., H, N, M]; a token that may attend to none gets 0.

    Returns:
        [..., H, N, d_v] of the dtype of q; float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device.
    """
    q, k, v = check_qkv(q, k, v)
    check_bias(bias, q, k)
    check_mask(mask, q, k)
    dtype = compute_dtype(q)
    with without_autocast(q):
        scores = (q.to(dtype) @ k.to(dtype).mT) * q.shape[-1] ** -0.5  # [..., H, N, M]
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
    """TaylorShift attention, all N x M weights written out (:eq:`eq-taylor-softmax`, :eq:`eq-direct`).

    x = tau (q / |q|) . (k / |k|),   w = 1 + x + x^2 / 2,   y = (sum_j w_j v_j) / (sum_j w_j)

    Args:
        q: [..., H, N, d], normalised inside; a zero vector stays zero and has weight 1 with every token.
        k: [..., H, M, d], likewise.
        v: [..., H, M, d_v].
        temperature: tau, a float or a tensor [H]: the largest |x|.
        mask: boolean, True = may attend, broadcast to [..., H, N, M]; a token that may attend to none gets 0.
        scale_output: multiply by sqrt(M / d), TaylorShift's ``output_normalized``.
        order: last power of the series: 2, 4 or 6. Odd orders are negative somewhere, so are no weights.

    Returns:
        [..., H, N, d_v] of the dtype of q; float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device, or an odd order.
    """
    q, k, v = check_qkv(q, k, v)
    check_mask(mask, q, k)
    check_order(order)
    dtype = compute_dtype(q)
    tau = check_temperature(temperature, q, dtype)[:, None, None]
    with without_autocast(q):
        scores = tau * (unit(q.to(dtype)) @ unit(k.to(dtype)).mT)  # [..., H, N, M]
        weights = sum(scores**n / math.factorial(n) for n in range(1, order + 1)) + 1
        if mask is not None:
            weights = weights * mask
        total = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(total == 0, 1, total)
        return (weights @ v.to(dtype) * output_scale(k, scale_output)).to(q.dtype)


def taylor_sums(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | tuple[Tensor, Tensor] | None = None,
    scale_output: bool = False,
) -> Tensor:
    """TaylorShift attention by sums over keys that all queries share (:eq:`eq-efficient`, :eq:`eq-state`).

    S = sum_j phi(k_j / |k_j|) [v_j, 1]^T,   [a, b] = phi(tau q / |q|)^T S,   y = a / b

    With regions there is a sum for each label, and a query reads that of its own (:eq:`eq-regions`). The
    arguments, the result and what is raised are those of :func:`taylorir.attention.taylor_efficient`.
    """
    q, k, v = check_qkv(q, k, v)
    regions = check_regions(regions, q, k)
    dtype = compute_dtype(q)
    tau = check_temperature(temperature, q, dtype)[:, None, None]
    with without_autocast(q):
        phi_q, phi_k = features(tau * unit(q.to(dtype))), features(unit(k.to(dtype)))  # [..., H, N, F]
        v1 = torch.cat((v.to(dtype), torch.ones_like(v[..., :1], dtype=dtype)), -1)  # [..., H, M, d_v + 1]
        if regions is None:
            out = phi_q @ (phi_k.mT @ v1)
        else:
            queries, keys = (labels[..., None, :, None] for labels in regions)
            out = sum(
                (queries == label) * (phi_q @ (phi_k.mT @ ((keys == label) * v1)))
                for label in regions[0].unique()
            )
        a, b = out[..., :-1], out[..., -1:]
        return (a / torch.where(b == 0, 1, b) * output_scale(k, scale_output)).to(q.dtype)


def features(x: Tensor) -> Tensor:
    """phi(x) = (1, x, x_i x_j for i < j, x_i^2 / sqrt(2)): [..., d] to [..., F] (:eq:`eq-features`).

    Each pair of factors counts once, and phi(x) . phi(y) = 1 + x . y + (x . y)^2 / 2.
    """
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    products = x[..., i] * x[..., j]
    products = torch.where(i == j, products * math.sqrt(0.5), products)
    return torch.cat((torch.ones_like(x[..., :1]), x, products), -1)


def unit(x: Tensor) -> Tensor:
    """x / |x|; zero, with zero gradients, where |x| is not above epsilon."""
    square = (x * x).sum(-1, keepdim=True)
    safe = square > EPSILON**2
    return x * torch.where(safe, torch.where(safe, square, 1).rsqrt(), 0)


def output_scale(k: Tensor, scale_output: bool) -> float:
    """sqrt(M / d), or 1."""
    return math.sqrt(k.shape[-2] / k.shape[-1]) if scale_output else 1.0
