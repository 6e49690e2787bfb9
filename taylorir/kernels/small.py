"""TaylorShift attention of a few small windows: the blocked direct form without its blocks.

Where all N x N weights fit in cache, calling PyTorch costs more than computing, so this makes the fewest
calls: q and k are normalised as one tensor, and their gradients are one tensor too. Tokens come last, because
a product of few columns takes up to twice as long as its transpose.

Shape legend
    B, H, N, d, d_v   batch (windows), heads, tokens, width of q and k, width of v; G = B x H
    units [2, B, H, d, N] of q and k, their inverse norms [2, B, H, 1, N]; tau [H, 1, 1]
    scores 1 + x and weights 1 + (1 + x)^2 [G, N keys, N queries]; the weights are twice 1 + x + x^2 / 2,
    and the two drops out of y = a / b
    y, da [G, d_v, N]; b, db [G, 1, N]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.kernels.precision import full_precision, full_precision_once
from taylorir.kernels.rows import EPSILON

MAX_WEIGHTS = 1 << 19  # G N^2 up to which this is the faster way


def taylor_direct_small(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, output_scale: float) -> Tensor:
    """Attention within windows, q, k [B, H, N, d] and v [B, H, N, d_v] to [B, H, N, d_v]; temperature [H]."""
    if q.dtype == temperature.dtype:
        return _TaylorSmall.apply(q, k, v, temperature, output_scale)
    wide = (x.to(temperature.dtype) for x in (q, k, v))
    return _TaylorSmall.apply(*wide, temperature, output_scale).to(q.dtype)


class _TaylorSmall(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(ctx, q, k, v, temperature, output_scale):
        units = torch.stack((q.mT, k.mT))
        inverse = torch.threshold_((units * units).sum(-2, keepdim=True), EPSILON**2, math.inf).rsqrt_()
        queries, keys = units.mul_(inverse).unbind()
        tau = temperature.view(-1, 1, 1)
        one = tau.new_ones(())
        scores = torch.baddbmm(one, keys.flatten(0, 1).mT, (queries * tau).flatten(0, 1))
        weights = torch.addcmul(one, scores, scores)
        b = weights.sum(1, keepdim=True)
        y = torch.bmm(v.flatten(0, 1).mT, weights).div_(b)
        if output_scale != 1:
            y.mul_(output_scale)
        ctx.save_for_backward(units, inverse, tau, v, b, y, one)
        ctx.output_scale = output_scale
        return y.mT.view(v.shape)

    @staticmethod
    @full_precision_once
    def backward(ctx, dy):
        units, inverse, tau, v, b, y, one = ctx.saved_tensors
        queries, keys = units.unbind()
        queries, keys = (queries * tau).flatten(0, 1), keys.flatten(0, 1)
        da = dy.flatten(0, 1).mT / b
        minus_db = (da * y).sum(1, keepdim=True)
        if ctx.output_scale != 1:
            da.mul_(ctx.output_scale)
        scores = torch.baddbmm(one, keys.mT, queries)
        dscores = torch.baddbmm(minus_db, v.flatten(0, 1), da, beta=-2, alpha=2).mul_(scores)
        weights = torch.addcmul(one, scores, scores)
        dv = torch.bmm(da, weights.mT).mT.view(v.shape)
        dunits = torch.stack((torch.bmm(keys, dscores), torch.bmm(queries, dscores.mT))).view(units.shape)
        along = (units * dunits).sum(-2, keepdim=True)
        dq, dk = dunits.addcmul_(units, along, value=-1).mul_(inverse).mT.unbind()
        dq.mul_(tau)
        dtau = along[0].sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
        return dq, dk, dv, dtau, None
