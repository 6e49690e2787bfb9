"""TaylorShift attention of a few small windows: the blocked direct form without its blocks.

Where all N x N weights fit in cache, calling PyTorch costs more than computing; so this has the fewest calls.
Autograd does what is outside: views, casts, the temperature's expansion and the output's scale.

Shape legend: G windows x heads, N tokens; q, k [G, N, d]; v [G, N, d_v]; tau [G, 1, 1]; weights [G, N, N]
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taylorir.kernels.precision import full_precision
from taylorir.kernels.rows import add_product, inverse_norm

MAX_WEIGHTS = 1 << 16  # G N^2 up to which this is the faster way


def taylor_direct_small(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, output_scale: float) -> Tensor:
    """Attention within windows, q, k [B, H, N, d] and v [B, H, N, d_v] to [B, H, N, d_v]; temperature [H]."""
    tau = temperature.expand(len(q), -1).reshape(-1, 1, 1)
    flat = (x.to(temperature.dtype).flatten(0, 1) for x in (q, k, v))
    y = _TaylorSmall.apply(*flat, tau).view(v.shape)
    return (y if output_scale == 1 else y * output_scale).to(v.dtype)


class _TaylorSmall(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(ctx, q, k, v, tau):
        q_scale, k_scale = inverse_norm(q, -1, q.dtype), inverse_norm(k, -1, k.dtype)
        squares = _scores(q * (q_scale * tau), k * k_scale).square_()
        inverse = squares.sum(-1, keepdim=True).add_(k.shape[1]).reciprocal_()  # 1 / b
        y = torch.baddbmm(v.sum(1, keepdim=True), squares, v).mul_(inverse)
        ctx.save_for_backward(q, k, v, tau, q_scale, k_scale, inverse, y)
        return y

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx, dy):
        q, k, v, tau, q_scale, k_scale, inverse, y = ctx.saved_tensors
        units, keys = q * q_scale, k * k_scale
        queries = units * tau
        da = dy * inverse
        db = (da * y).sum(-1, keepdim=True).neg_()
        scores = _scores(queries, keys)
        dscores = torch.baddbmm(db, da, v.mT).mul_(scores)  # half of it
        dv = torch.baddbmm(da.sum(1, keepdim=True), scores.square_().mT, da)
        dqueries = add_product(None, dscores, keys, factor=2)
        dkeys = add_product(None, dscores.mT, queries, factor=2)
        along_q, along_k = _along(dqueries, units), _along(dkeys, keys)
        dq = dqueries.addcmul_(units, along_q, value=-1).mul_(q_scale * tau)
        dk = dkeys.addcmul_(keys, along_k, value=-1).mul_(k_scale)
        dtau = along_q.sum(1, keepdim=True) if ctx.needs_input_grad[3] else None
        return dq, dk, dv, dtau


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.baddbmm(queries.new_ones(()), queries, keys.mT)  # 1 + x


def _along(dx: Tensor, x: Tensor) -> Tensor:
    return (x * dx).sum(-1, keepdim=True)
