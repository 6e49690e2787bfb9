"""TaylorShift attention of a few small windows: the blocked direct form without its blocks.

Where all N x N weights fit in cache, calling PyTorch costs more than computing, so this makes the fewest
calls: q and k are normalised as one tensor, and their gradients are one tensor too. Tokens come last, because
a product of few columns takes up to twice as long as its transpose.

Shape legend
    ..., H, N, d, d_v   batch axes (windows), heads, tokens, width of q and k, width of v; G = ... x H
    units [2, ..., H, d, N] of q and k, their inverse norms [2, ..., H, 1, N]
    the temperature is a factor of products if it is a float, else tau [H, 1, 1], which multiplies the queries
    scores 1 + x and weights 1 + (1 + x)^2 [G, N keys, N queries]; the weights are twice 1 + x + x^2 / 2,
    and the two drops out of y = a / b
    y, da [G, d_v, N]; b, db [G, 1, N]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.attention.kernels.precision import compute_dtype, full_precision_once, without_autocast
from taylorir.attention.kernels.rows import EPSILON

MAX_WEIGHTS = 1 << 19  # G N^2 up to which this is the faster way


def is_small(q: Tensor) -> bool:
    """Whether :func:`taylor_direct_small` is the faster way for q [..., H, N, d]."""
    return q.numel() // q.shape[-1] * q.shape[-2] <= MAX_WEIGHTS


def taylor_direct_small(
    q: Tensor, k: Tensor, v: Tensor, temperature: float | Tensor, output_scale: float
) -> Tensor:
    """Attention within windows, q, k [..., H, N, d] and v [..., H, N, d_v] to [..., H, N, d_v].

    A temperature that is a float costs nothing: products take it along. A tensor is [H], of the dtype to
    compute in.
    """
    given = isinstance(temperature, Tensor)
    factor, tau = (1.0, temperature.view(-1, 1, 1)) if given else (temperature, None)
    dtype = compute_dtype(q)
    with without_autocast(q):
        if q.dtype == dtype:
            return _TaylorSmall.apply(q, k, v, tau, factor, output_scale)
        wide = (x.to(dtype) for x in (q, k, v))
        return _TaylorSmall.apply(*wide, tau, factor, output_scale).to(q.dtype)


class _TaylorSmall(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, tau, factor, output_scale):
        units = torch.stack((q.mT, k.mT))
        inverse = torch.threshold_((units * units).sum(-2, keepdim=True), EPSILON**2, math.inf).rsqrt_()
        queries, keys = units.mul_(inverse).flatten(1, -3).unbind()
        scaled = queries if tau is None else _times(queries, tau)
        one = units.new_ones(())
        scores = torch.baddbmm(one, keys.mT, scaled, alpha=factor)
        weights = torch.addcmul(one, scores, scores)
        b = weights.sum(1, keepdim=True)
        values = v.flatten(0, -3)
        y = torch.bmm(values.mT, weights).div_(b)
        if output_scale != 1:
            y.mul_(output_scale)
        ctx.save_for_backward(units, queries, keys, inverse, tau, values, b, y, one)
        ctx.factor, ctx.output_scale = factor, output_scale
        return y.mT.view(v.shape)

    @staticmethod
    @full_precision_once
    def backward(ctx, dy):
        units, queries, keys, inverse, tau, values, b, y, one = ctx.saved_tensors
        if tau is not None:
            queries = _times(queries, tau)
        da = dy.flatten(0, -3).mT / b
        minus_db = (da * y).sum(1, keepdim=True)
        if ctx.output_scale != 1:
            da.mul_(ctx.output_scale)
        scores = torch.baddbmm(one, keys.mT, queries, alpha=ctx.factor)
        dscores = torch.baddbmm(minus_db, values, da, beta=-2, alpha=2).mul_(scores)
        weights = torch.addcmul(one, scores, scores)
        dv = torch.bmm(da, weights.mT).mT.view(dy.shape)
        dunits = torch.empty_like(units)
        dqueries, dkeys = dunits.flatten(1, -3).unbind()
        torch.baddbmm(one, keys, dscores, beta=0, alpha=ctx.factor, out=dqueries)
        torch.baddbmm(one, queries, dscores.mT, beta=0, alpha=ctx.factor, out=dkeys)
        along = (units * dunits).sum(-2, keepdim=True)
        dq, dk = dunits.addcmul_(units, along, value=-1).mul_(inverse).mT.unbind()
        dtau = None
        if tau is not None:
            dq.mul_(tau)
            if ctx.needs_input_grad[3]:
                dtau = along[0].sum((-2, -1)).view(-1, len(tau)).sum(0).view(tau.shape)
        return dq, dk, dv, dtau, None, None


def _times(queries: Tensor, tau: Tensor) -> Tensor:
    """Queries [G, d, N] times tau [H, 1, 1]."""
    return (queries.unflatten(0, (-1, len(tau))) * tau).flatten(0, 1)
