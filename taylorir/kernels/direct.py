"""TaylorShift attention in quadratic time, in plain PyTorch: weights in blocks, recomputed in backward.

Shape legend
    B, H, N, d, d_v   batch (windows), heads, tokens, width of q and k, width of v
    G   windows x heads of a tile; C query tokens of a chunk; M tokens of the segment (all keys)
    rows [G, d + 1, C or M]; values [G, d_v + 1, M]; scores 1 + x [G, C, M]

The weight is 1 + x + x^2 / 2 = ((1 + x)^2 + 1) / 2, and the half drops out of y = a / b. Rows begin with a
one, so their product is 1 + x itself, and a weight costs one multiplication after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taylorir.kernels.precision import full_precision
from taylorir.kernels.rows import add_product, output_gradient, unit_gradient, unit_rows, value_rows
from taylorir.kernels.segments import Segment, Tile, tiles

MAX_CHUNK = 1024


def taylor_direct_blocked(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, segments: list[Segment], output_scale: float
) -> Tensor:
    """As :func:`taylorir.kernels.chunked.taylor_efficient_chunked`, with time quadratic in N."""
    return _TaylorDirect.apply(q, k, v, temperature, segments, output_scale)


class _TaylorDirect(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(ctx, q, k, v, temperature, segments, output_scale):
        dtype = temperature.dtype
        y = torch.empty_like(v)
        inverse = q.new_empty((*q.shape[:-1], 1), dtype=dtype)  # 1 / b
        for tile in _tiles(q, segments):
            keys, _ = unit_rows(tile.load(k, tile.tokens), dtype)
            values = value_rows(tile.load(v, tile.tokens), dtype, output_scale)
            total = values.sum(2, keepdim=True)
            for chunk in tile.chunks:
                units, _ = unit_rows(tile.load(q, chunk), dtype)
                scores = torch.bmm(_heated(units, temperature, tile).mT, keys)  # [G, C, M]
                out = torch.bmm(values, scores.square_().mT).add_(total)  # [G, d_v + 1, C]
                tile.store(inverse, chunk, out[:, -1:].reciprocal_())
                tile.store(y, chunk, out[:, :-1], out[:, -1:])
        ctx.save_for_backward(q, k, v, temperature, y, inverse)
        ctx.segments, ctx.output_scale = segments, output_scale
        return y

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx, dy):
        q, k, v, temperature, y, inverse = ctx.saved_tensors
        dtype = temperature.dtype
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dtemperature = torch.zeros_like(temperature) if ctx.needs_input_grad[3] else None
        for tile in _tiles(q, ctx.segments):
            keys, key_scale = unit_rows(tile.load(k, tile.tokens), dtype)
            values = value_rows(tile.load(v, tile.tokens), dtype, ctx.output_scale)
            dkeys = dvalues = None
            for chunk in tile.chunks:
                units, scale = unit_rows(tile.load(q, chunk), dtype)
                queries = _heated(units, temperature, tile)
                dout = output_gradient(*(tile.load(x, chunk) for x in (dy, y, inverse)))
                scores = torch.bmm(queries.mT, keys)
                dscores = add_product(None, dout.mT, values, factor=2).mul_(scores)
                dkeys = add_product(dkeys, queries, dscores)
                dqueries = torch.bmm(keys, dscores.mT)
                dvalues = add_product(dvalues, dout, scores.square_()).add_(dout.sum(2, keepdim=True))
                if dtemperature is not None:
                    per_head = (dqueries[:, 1:] * units[:, 1:]).sum((1, 2)).view(-1, tile.num_heads)
                    dtemperature[tile.heads] += per_head.sum(0)
                dunits = _heated(dqueries, temperature, tile)
                tile.store(dq, chunk, unit_gradient(dunits, units), scale)
            tile.store(dk, tile.tokens, unit_gradient(dkeys, keys), key_scale)
            tile.store(dv, tile.tokens, dvalues[:, :-1], ctx.output_scale)
        return dq, dk, dv, dtemperature, None, None


def _tiles(q: Tensor, segments: list[Segment]) -> Iterator[Tile]:
    return tiles(segments, q.shape[1], None, MAX_CHUNK)


def _heated(rows: Tensor, temperature: Tensor, tile: Tile) -> Tensor:
    """Rows [G, n, C] with all but the row of ones multiplied by the temperature of their head."""
    factors = torch.ones_like(rows[:, :, :1]).view(-1, tile.num_heads, rows.shape[1], 1)
    factors[:, :, 1:] = temperature[tile.heads, None, None]
    return rows * factors.flatten(0, 1)
