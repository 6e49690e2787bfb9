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
from taylorir.kernels.rows import output_gradient, unit_gradient, unit_rows, value_rows
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
        y = torch.empty_like(v)
        normaliser = temperature.new_empty((*q.shape[:-1], 1))
        for tile in _tiles(q, segments):
            keys = unit_rows(tile.load(k, tile.tokens), temperature.dtype)[0]
            values = value_rows(tile.load(v, tile.tokens), temperature.dtype)
            total = values.sum(2, keepdim=True)
            tau = _head_temperature(temperature, tile, keys)
            for chunk in tile.chunks:
                queries = unit_rows(tile.load(q, chunk), temperature.dtype)[0]
                queries[:, 1:] *= tau
                scores = torch.bmm(queries.mT, keys)  # [G, C, M]
                out = torch.bmm(values, scores.square_().mT).add_(total)  # [G, d_v + 1, C]
                tile.store(normaliser, chunk, out[:, -1:])
                tile.store(y, chunk, out[:, :-1].div_(out[:, -1:]).mul_(output_scale))
        ctx.save_for_backward(q, k, v, temperature, y, normaliser)
        ctx.segments, ctx.output_scale = segments, output_scale
        return y

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx, dy):
        q, k, v, temperature, y, normaliser = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dtemperature = torch.zeros_like(temperature)
        dtype = temperature.dtype
        for tile in _tiles(q, ctx.segments):
            keys, key_scale = unit_rows(tile.load(k, tile.tokens), dtype)
            values = value_rows(tile.load(v, tile.tokens), dtype)
            dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
            tau = _head_temperature(temperature, tile, keys)
            for chunk in tile.chunks:
                units, scale = unit_rows(tile.load(q, chunk), dtype)
                queries = units.clone()
                queries[:, 1:] *= tau
                dout = output_gradient(*(tile.load(x, chunk) for x in (dy, y, normaliser)))
                dout[:, :-1] *= ctx.output_scale
                scores = torch.bmm(queries.mT, keys)
                dscores = torch.bmm(dout.mT, values).mul_(scores).mul_(2)
                torch.baddbmm(dkeys, queries, dscores, out=dkeys)
                dqueries = torch.bmm(keys, dscores.mT)
                torch.baddbmm(dvalues, dout, scores.square_(), out=dvalues)
                dvalues += dout.sum(2, keepdim=True)
                if ctx.needs_input_grad[3]:
                    dtau = (dqueries[:, 1:] * units[:, 1:]).sum((1, 2))
                    dtemperature[tile.heads] += dtau.unflatten(0, (-1, len(temperature[tile.heads]))).sum(0)
                tile.store(dq, chunk, unit_gradient(dqueries.mul_(tau), units, scale))
            tile.store(dk, tile.tokens, unit_gradient(dkeys, keys, key_scale))
            tile.store(dv, tile.tokens, dvalues[:, :-1])
        return dq, dk, dv, dtemperature, None, None


def _tiles(q: Tensor, segments: list[Segment]) -> Iterator[Tile]:
    return tiles(segments, q.shape[1], None, MAX_CHUNK)


def _head_temperature(temperature: Tensor, tile: Tile, keys: Tensor) -> Tensor:
    """The temperature of each of the G windows x heads: [G, 1, 1]."""
    tau = temperature[tile.heads]
    return tau.repeat(len(keys) // len(tau))[:, None, None]
