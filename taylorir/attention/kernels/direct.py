"""TaylorShift attention in quadratic time, in plain PyTorch: weights in blocks, recomputed in backward.

Shape legend
    B, H, N, d, d_v   batch (windows), heads, tokens, width of q and k, width of v
    G   windows x heads of a tile; C query tokens of a chunk; M tokens of the segment, all its keys
    units [G, C or M, d]; values [G, M, d_v]; scores 1 + x [G, C, M]
    gradients of units and values are [G, width, tokens], which products of few columns come out faster as

The weight is 1 + x + x^2 / 2 = ((1 + x)^2 + 1) / 2, and the half drops out of y = a / b. So a weight costs
one multiplication after the product, and its one is added to a and b at once: the sum of v, and M.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from taylorir.attention.kernels.precision import full_precision, full_precision_once
from taylorir.attention.kernels.rows import add_product, inverse_norm, multiply
from taylorir.attention.kernels.segments import Segment, Tile, tiles

MAX_CHUNK = 1024


def taylor_direct_blocked(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, segments: list[Segment], output_scale: float
) -> Tensor:
    """As :func:`taylorir.attention.kernels.chunked.taylor_efficient_chunked`, with time quadratic in N."""
    return _TaylorDirect.apply(q, k, v, temperature, segments, output_scale)


class _TaylorDirect(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(ctx, q, k, v, temperature, segments, output_scale):
        y = torch.empty_like(v, dtype=temperature.dtype)  # rounded, it would upset the gradients
        inverse = q.new_empty((*q.shape[:-1], 1), dtype=temperature.dtype)  # 1 / b
        one = temperature.new_ones(())
        for tile in _tiles(q, segments):
            keys, _ = _units(tile, k, tile.tokens, temperature.dtype)
            values = _values(tile, v, temperature.dtype)
            total = values.sum(1)[..., None]
            tau = _tau(temperature, tile)
            for chunk in tile.chunks:
                queries, _ = _units(tile, q, chunk, temperature.dtype, tau)
                squares = torch.baddbmm(one, queries, keys.mT).square_()
                b = squares.sum(-1).add_(keys.shape[1])[:, None].reciprocal_()  # [G, 1, C]
                a = torch.baddbmm(total, values.mT, squares.mT)  # [G, d_v, C]
                tile.store(inverse, chunk, b)
                tile.store(y, chunk, a, b if output_scale == 1 else b * output_scale)
        ctx.save_for_backward(q, k, v, temperature, y, inverse)
        ctx.segments, ctx.output_scale = segments, output_scale
        return y.to(v.dtype)

    @staticmethod
    @full_precision_once
    def backward(ctx, dy):
        q, k, v, temperature, y, inverse = ctx.saved_tensors
        dtype = temperature.dtype
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dtemperature = torch.zeros_like(temperature) if ctx.needs_input_grad[3] else None
        one = temperature.new_ones(())
        for tile in _tiles(q, ctx.segments):
            keys, key_scale = _units(tile, k, tile.tokens, dtype)
            values = _values(tile, v, dtype)
            tau = _tau(temperature, tile)
            dkeys = dvalues = None
            for chunk in tile.chunks:
                units, scale = _units(tile, q, chunk, dtype)
                queries = (units.unflatten(0, (-1, tile.num_heads)) * tau).flatten(0, 1)
                da, db = _output_gradient(tile, chunk, dy, y, inverse, ctx.output_scale)
                scores = torch.baddbmm(one, queries, keys.mT)
                dscores = torch.baddbmm(db, da, values.mT).mul_(scores)  # half of it
                dkeys = add_product(dkeys, queries.mT, dscores, factor=2)
                dvalues = add_product(dvalues, da.mT, scores.square_()).add_(da.sum(1)[..., None])
                dqueries = add_product(None, keys.mT, dscores.mT, factor=2)
                along = _remove_radial(dqueries, units)
                if dtemperature is not None:
                    dtemperature[tile.heads] += along.sum((1, 2)).view(-1, tile.num_heads).sum(0)
                tile.store(dq, chunk, dqueries, (scale * tau).flatten(0, 1).mT)
            _remove_radial(dkeys, keys)
            tile.store(dk, tile.tokens, dkeys, key_scale.flatten(0, 1).mT)
            tile.store(dv, tile.tokens, dvalues)
        return dq, dk, dv, dtemperature, None, None


def _tiles(q: Tensor, segments: list[Segment]) -> Iterator[Tile]:
    return tiles(segments, q.shape[1], None, MAX_CHUNK)


def _tau(temperature: Tensor, tile: Tile) -> Tensor:
    return temperature[tile.heads, None, None]  # [heads, 1, 1]


def _units(
    tile: Tile, x: Tensor, chunk: slice | Tensor, dtype: torch.dtype, tau: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Unit vectors [G, C, d], times tau if given, and 1 / |x| [windows, heads, C, 1]."""
    part = tile.load(x, chunk).mT
    scale = inverse_norm(part, -1, dtype)
    units = scale.new_empty(part.shape)
    multiply(part, scale if tau is None else scale * tau, units)
    return units.flatten(0, 1), scale


def _values(tile: Tile, v: Tensor, dtype: torch.dtype) -> Tensor:
    return tile.load(v, tile.tokens).mT.to(dtype).flatten(0, 1)  # [G, M, d_v]


def _output_gradient(
    tile: Tile, chunk: slice | Tensor, dy: Tensor, y: Tensor, inverse: Tensor, output_scale: float
) -> tuple[Tensor, Tensor]:
    """The gradients of a [G, C, d_v] and b [G, C, 1] from that of y = output_scale a / b."""
    dy, y, inverse = (tile.load(x, chunk).mT for x in (dy, y, inverse))
    da = inverse.new_empty(dy.shape)
    multiply(dy, inverse, da)
    db = (da * y).sum(-1, keepdim=True).neg_()
    if output_scale != 1:
        da.mul_(output_scale)
    return da.flatten(0, 1), db.flatten(0, 1)


def _remove_radial(dunits: Tensor, units: Tensor) -> Tensor:
    """Take from the gradient [G, d, C] of units [G, C, d] its part along them, in place; return u . du."""
    along = (dunits * units.mT).sum(1, keepdim=True)  # [G, 1, C]
    dunits.addcmul_(units.mT, along, value=-1)
    return along
