"""Tiles: cut a large picture into overlapping tiles, run each alone, and blend them without a seam.

Everything is counted in LR pixels but for names that say otherwise. Shape legend: C channels, T tile side, s
upscale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

_MARGIN = 0.25  # share of an overlap, on each side, where the tile that ends there does not count


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        starts: first pixel of each tile, ascending, multiples of the window.
        size: side of a tile.
        weights: for each tile ``[size * s]`` blending weights in output pixels; over the tiles they sum to
            one.
    """

    starts: tuple[int, ...]
    size: int
    weights: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return self.starts[-1] + self.size

    def steps(self, upscale: int) -> Iterator[tuple[int, int]]:
        """For each tile its side, and how much of it no later tile touches, both in output pixels."""
        for start, following in pairwise((*self.starts, len(self))):
            yield self.size * upscale, (following - start) * upscale


def plan_axis(length: int, tile: int, overlap: int, window: int, upscale: int) -> Axis:
    """Place equal tiles evenly along an axis, all on the grid of windows.

    So each tile sees the same windows as the whole image does. Neighbours overlap by at least ``overlap``
    pixels. The outer quarters of an overlap, where the nearer border of one of the two tiles spoils it most,
    are the other's alone; in the half between them a raised cosine blends.

    Args:
        length: of the axis, a multiple of ``window``.
        tile: largest side. The tiles are the smallest multiples of ``window`` that do with as many tiles.
        overlap: least number of pixels that neighbours share.
        window: grid that tiles start on.
        upscale: output pixels per pixel.

    Raises:
        ValueError: ``tile`` is smaller than the window, or leaves no advance beside the overlap.
    """
    if tile < window:
        raise ValueError(f"tile must be at least the window of {window} pixels, not {tile}")
    if overlap < 0:
        raise ValueError(f"overlap must not be negative, not {overlap}")
    size = min(tile // window * window, length)
    if size == length:
        return Axis((0,), length, (np.ones(length * upscale, np.float32),))
    stride = (size - overlap) // window * window
    if stride < 1:
        raise ValueError(f"tile must be at least overlap + window = {overlap + window} pixels, not {tile}")
    count = -(-(length - size) // stride) + 1
    shared = size - stride
    size = -(-(length + (count - 1) * shared) // (count * window)) * window
    last = (length - size) // window
    starts = tuple(int(i * last / (count - 1)) * window for i in range(count))
    ramps = []
    for i, start in enumerate(starts):
        ramp = np.ones(size * upscale)
        if i > 0:
            shared = (starts[i - 1] + size - start) * upscale
            ramp[:shared] *= _rise(shared)
        if i < count - 1:
            shared = (start + size - starts[i + 1]) * upscale
            ramp[size * upscale - shared :] *= _rise(shared)[::-1]
        ramps.append(ramp)
    total = np.zeros(length * upscale)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start * upscale : start * upscale + len(ramp)] += ramp
    weights = tuple(
        (ramp / total[start * upscale : start * upscale + len(ramp)]).astype(np.float32)
        for start, ramp in zip(starts, ramps, strict=True)
    )
    return Axis(starts, size, weights)


def _rise(count: int) -> np.ndarray:
    """Weights over an overlap, from 0 to 1: raised cosine in the middle half, flat in the outer quarters."""
    across = ((np.arange(count) + 0.5) / count - _MARGIN) / (1 - 2 * _MARGIN)
    return np.sin(np.clip(across, 0, 1) * np.pi / 2) ** 2


def blend_tiles(
    cut: Callable[[slice, slice], Tensor],
    network: Callable[[Tensor], Tensor],
    rows: Axis,
    columns: Axis,
    upscale: int,
    advance: Callable[[], object] = lambda: None,
    *,
    channels: int = 3,
) -> Iterator[tuple[int, int, Tensor]]:
    """Run the network on each tile; yield the parts of the blended result as they are finished.

    The tiles are walked along the longer side. Of what was done, only the overlap with the tiles to come is
    held: across the shorter side, and beside the last tile.

    Args:
        cut: a tile ``[1, C, T, T']`` of the image, given its rows and columns, of the sides that the two axes
            were planned for.
        network: ``[1, C, T, T']`` to ``[1, C, s T, s T']``.
        rows: tiles along the height.
        columns: tiles along the width.
        upscale: s.
        advance: called after each tile.
        channels: C.

    Yields:
        (first output row, first output column, float32 ``[C, H', W']`` on the CPU). The parts cover the
        result without overlap.
    """
    slow, fast, along, across = (rows, columns, 1, 2) if len(rows) >= len(columns) else (columns, rows, 2, 1)
    shape = [channels, len(fast) * upscale, len(fast) * upscale]
    shape[along] = max((size - step for size, step in slow.steps(upscale)), default=0)
    carried, kept = (
        torch.empty(shape),
        0,
    )  # sums of the tiles before, where the next row of tiles adds to them
    for i, (size, step) in enumerate(slow.steps(upscale)):
        beside = None  # the same of the tile before in this row
        for j, (width, stride) in enumerate(fast.steps(upscale)):
            place = [0, slow.starts[i], fast.starts[j]] if along == 1 else [0, fast.starts[j], slow.starts[i]]
            top, left = place[1:]
            out = network(cut(slice(top, top + rows.size), slice(left, left + columns.size)))[0].float().cpu()
            weights = (slow.weights[i], fast.weights[j])
            out = out * torch.from_numpy(np.outer(*(weights if along == 1 else weights[::-1])))
            advance()
            if beside is not None:
                out.narrow(across, 0, beside.shape[across]).add_(beside)
            beside = out.narrow(across, stride, width - stride).clone()
            done = out.narrow(across, 0, stride)
            before = carried.narrow(across, place[across] * upscale, stride)
            done.narrow(along, 0, kept).add_(before.narrow(along, 0, kept))
            before.narrow(along, 0, size - step).copy_(done.narrow(along, step, size - step))
            yield top * upscale, left * upscale, done.narrow(along, 0, step)
        kept = size - step
