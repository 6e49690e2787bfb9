"""TaylorShift attention in quadratic time, in plain PyTorch, in one of two ways.

In blocks: no N x N weights are kept, but made anew in backward. All at once: where the weights of a few small
windows fit in cache, calling PyTorch costs more than computing, so that way makes the fewest calls; q and k
are normalised as one tensor, and their gradients are one tensor too. Tokens come last, because a product of
few columns takes up to twice as long as its transpose.

Shape legend
    B, H, N, d, d_v   batch (windows), heads, tokens, width of q and k, width of v
    G   windows x heads of a portion; C query tokens of a chunk; M tokens of the segment, all its keys
  in blocks
    units [G, C or M, d]; values [G, M, d_v]; scores 1 + x [G, C, M]
    gradients of units and values are [G, width, tokens]
  all at once
    units [2, ..., H, d, N] of q and k, their inverse norms [2, ..., H, 1, N]
    the temperature is a factor of products if it is a float, else tau [H, 1, 1], which multiplies the queries
    scores 1 + x and weights 1 + (1 + x)^2 [G, N keys, N queries]; y, da [G, d_v, N]; b, db [G, 1, N]

The weight is 1 + x + x^2 / 2 = ((1 + x)^2 + 1) / 2, and the half drops out of y = a / b. So a weight costs
one multiplication after the product; in blocks its one is added to a and b at once: the sum of v, and M.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylorir.attention.kernels.arithmetic import add_product, inverse_norm
from taylorir.attention.kernels.segments import (
    Execution,
    Portion,
    Segment,
    gradient_memory,
    output_memory,
    portions,
)

MAX_WEIGHTS = 1 << 19  # G N^2 up to which all at once is the faster way
MAX_CHUNK = 1024


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    *,
    segments: list[Segment],
    output_scale: float,
    execution: Execution,
) -> list[Tensor]:
    """As :func:`taylorir.attention.kernels.efficient.forward`, in time quadratic in N and without states."""
    y, inverse = output_memory(q, v, temperature.dtype, segments)  # rounded, y would upset the gradients
    one = temperature.new_ones(())
    for portion in execution.portions(portions(segments, q, MAX_CHUNK)):
        keys, _ = _units(portion, k, portion.key_chunks[0], temperature.dtype)
        values = _values(portion, v, temperature.dtype)
        total = values.sum(1)[..., None]
        tau = _tau(temperature, portion)
        for chunk in portion.query_chunks:
            queries, _ = _units(portion, q, chunk, temperature.dtype, tau)
            squares = torch.baddbmm(one, queries, keys.mT).square_()
            b = squares.sum(-1).add_(keys.shape[1])[:, None].reciprocal_()  # [G, 1, C]
            a = torch.baddbmm(total, values.mT, squares.mT)  # [G, d_v, C]
            portion.store(inverse, chunk, b)
            portion.store(y, chunk, a, b if output_scale == 1 else b * output_scale)
    return [y, inverse]


def backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    y: Tensor,
    inverse: Tensor,
    *,
    segments: list[Segment],
    output_scale: float,
    execution: Execution,
    needs_temperature: bool,
) -> list[Tensor | None]:
    """dq, dk, dv and dtemperature (None if not needed) from what :func:`forward` took and returned."""
    dtype = temperature.dtype
    dq, dk, dv = gradient_memory(q, k, v, segments)
    dtemperature = torch.zeros_like(temperature) if needs_temperature else None
    one = temperature.new_ones(())
    for portion in execution.portions(portions(segments, q, MAX_CHUNK)):
        all_keys = portion.key_chunks[0]
        keys, key_scale = _units(portion, k, all_keys, dtype)
        values = _values(portion, v, dtype)
        tau = _tau(temperature, portion)
        dkeys = dvalues = None
        for chunk in portion.query_chunks:
            units, scale = _units(portion, q, chunk, dtype)
            queries = (units.unflatten(0, (-1, portion.num_heads)) * tau).flatten(0, 1)
            da, db = _output_gradient(portion, chunk, dy, y, inverse, output_scale)
            scores = torch.baddbmm(one, queries, keys.mT)
            dscores = torch.baddbmm(db, da, values.mT).mul_(scores)  # half of it
            dkeys = add_product(dkeys, queries.mT, dscores, factor=2)
            dvalues = add_product(dvalues, da.mT, scores.square_()).add_(da.sum(1)[..., None])
            dqueries = add_product(None, keys.mT, dscores.mT, factor=2)
            along = _remove_radial(dqueries, units)
            if dtemperature is not None:
                dtemperature[portion.heads] += along.sum((1, 2)).view(-1, portion.num_heads).sum(0)
            portion.store(dq, chunk, dqueries, (scale * tau).flatten(0, 1).mT)
        _remove_radial(dkeys, keys)
        portion.store(dk, all_keys, dkeys, key_scale.flatten(0, 1).mT)
        portion.store(dv, all_keys, dvalues)
    return [dq, dk, dv, dtemperature]


def _tau(temperature: Tensor, portion: Portion) -> Tensor:
    return temperature[portion.heads, None, None]  # [heads, 1, 1]


def _units(
    portion: Portion, x: Tensor, chunk: slice | Tensor, dtype: torch.dtype, tau: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Unit vectors [G, C, d], times tau if given, and 1 / |x| [windows, heads, C, 1]."""
    part = portion.load(x, chunk).mT
    scale = inverse_norm(part, -1, dtype)
    units = scale.new_empty(part.shape)
    torch.mul(part, scale if tau is None else scale * tau, out=units)
    return units.flatten(0, 1), scale


def _values(portion: Portion, v: Tensor, dtype: torch.dtype) -> Tensor:
    return portion.load(v, portion.key_chunks[0]).mT.to(dtype).flatten(0, 1)  # [G, M, d_v]


def _output_gradient(
    portion: Portion, chunk: slice | Tensor, dy: Tensor, y: Tensor, inverse: Tensor, output_scale: float
) -> tuple[Tensor, Tensor]:
    """The gradients of a [G, C, d_v] and b [G, C, 1] from that of y = output_scale a / b."""
    dy, y, inverse = (portion.load(x, chunk).mT for x in (dy, y, inverse))
    da = inverse.new_empty(dy.shape)
    torch.mul(dy, inverse, out=da)
    db = (da * y).sum(-1, keepdim=True).neg_()
    if output_scale != 1:
        da.mul_(output_scale)
    return da.flatten(0, 1), db.flatten(0, 1)


def _remove_radial(dunits: Tensor, units: Tensor) -> Tensor:
    """Take from the gradient [G, d, C] of units [G, C, d] its part along them, in place; return u . du."""
    along = (dunits * units.mT).sum(1, keepdim=True)  # [G, 1, C]
    dunits.addcmul_(units.mT, along, value=-1)
    return along


def is_small(q: Tensor, k: Tensor) -> bool:
    """Whether :func:`small_forward` is the faster way for q and k [..., H, N, d]."""
    return q.shape == k.shape and 0 < q.numel() // q.shape[-1] * q.shape[-2] <= MAX_WEIGHTS


def small_forward(
    q: Tensor, k: Tensor, v: Tensor, tau: Tensor | None, factor: float, output_scale: float
) -> list[Tensor]:
    """All at once: y [G, d_v, N] of q, k [..., H, N, d] and v, then inverse norms, b and a one.

    The temperature is ``factor``, which costs nothing as products take it along, times tau [H, 1, 1], if
    given.
    """
    units = torch.stack((q.mT, k.mT))
    inverse = inverse_norm(units, -2, units.dtype)
    queries, keys = units.mul_(inverse).flatten(1, -3).unbind()
    one = units.new_ones(())
    scores = torch.baddbmm(one, keys.mT, queries if tau is None else _times(queries, tau), alpha=factor)
    weights = torch.addcmul(one, scores, scores, out=scores)  # in their memory
    b = weights.sum(1, keepdim=True)
    y = torch.bmm(v.flatten(0, -3).mT, weights).div_(b)
    if output_scale != 1:
        y.mul_(output_scale)
    return [y, inverse, b, one]


def small_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor | None,
    y: Tensor,
    inverse: Tensor,
    b: Tensor,
    one: Tensor,
    factor: float,
    output_scale: float,
    needs_temperature: bool,
) -> list[Tensor | None]:
    """dq, dk, dv and dtau (None if not needed) from what :func:`small_forward` took and returned."""
    units = torch.stack((q.mT, k.mT)).mul_(inverse)
    queries, keys = units.flatten(1, -3).unbind()
    if tau is not None:
        queries = _times(queries, tau)
    da = dy.flatten(0, -3).mT / b
    minus_db = (da * y).sum(1, keepdim=True)
    if output_scale != 1:
        da.mul_(output_scale)
    scores = torch.baddbmm(one, keys.mT, queries, alpha=factor)
    dscores = torch.baddbmm(minus_db, v.flatten(0, -3), da, beta=-2, alpha=2).mul_(scores)
    weights = torch.addcmul(one, scores, scores, out=scores)  # in their memory
    dv = torch.bmm(da, weights.mT).mT.view(dy.shape)
    dunits = torch.empty_like(units)
    dqueries, dkeys = dunits.flatten(1, -3).unbind()
    torch.baddbmm(one, keys, dscores, beta=0, alpha=factor, out=dqueries)
    torch.baddbmm(one, queries, dscores.mT, beta=0, alpha=factor, out=dkeys)
    along = (units * dunits).sum(-2, keepdim=True)
    dq, dk = dunits.addcmul_(units, along, value=-1).mul_(inverse).mT.unbind()
    dtau = None
    if tau is not None:
        dq.mul_(tau)
        if needs_temperature:
            dtau = along[0].sum((-2, -1)).view(-1, len(tau)).sum(0).view(tau.shape)
    return [dq, dk, dv, dtau]


def _times(queries: Tensor, tau: Tensor) -> Tensor:
    """Queries [G, d, N] times tau [H, 1, 1]."""
    return (queries.unflatten(0, (-1, len(tau))) * tau).flatten(0, 1)
