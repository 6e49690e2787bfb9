"""Regions as segments: which tokens see each other, sorted so that each region is one run of rows.

A segment is one region of one window. The kernels work on segments, so that a window costs the same however
many regions it has, and their number has no bound. Sorting needs one look at the labels from the host; the
result is kept for the labels last seen (a model passes the same ones in every block and at every step).

Shape legend
    P windows that the labels distinguish; the batch repeats them
    S segments, T tiles of at most ``tile_size`` tokens of one segment
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Segments:
    """Tables for the kernels; int32 on the device of the labels.

    Attributes:
        labels: the labels that this was made from, held so that their memory is not given to others.
        windows: P.
        order: [P, N] rows of each window, sorted by label.
        segments: [S, 5] segment, window, first place in ``order``, end, number of tokens.
        tiles: [T, 5] the same, cut into tiles; the last column is the whole segment's number of tokens.
    """

    labels: Tensor
    windows: int
    order: Tensor
    segments: Tensor
    tiles: Tensor


_KEPT = 16
_seen: OrderedDict[tuple, Segments] = OrderedDict()


def segments_of(labels: Tensor, tile_size: int) -> Segments:
    """Segments of the labels [..., N]; axes that only repeat (stride 0) are windows counted once.

    The labels are looked at on the host (which waits for the device) unless the same tensor, unchanged, was
    among the last ones asked for; so run once before capturing a CUDA graph.
    """
    key = _key(labels, tile_size)
    if key is not None and key in _seen:
        _seen.move_to_end(key)
        return _seen[key]
    result = _build(labels, tile_size)
    if key is not None:
        _seen[key] = result
        if len(_seen) > _KEPT:
            _seen.popitem(last=False)
    return result


def _key(labels: Tensor, tile_size: int) -> tuple | None:
    if labels.is_inference():  # carries no version, so a change would go unseen
        return None
    place = (labels.data_ptr(), labels._version, labels.dtype, labels.device)
    return (*place, tuple(labels.shape), labels.stride(), tile_size)


def _build(labels: Tensor, tile_size: int) -> Segments:
    distinct = labels
    while distinct.ndim > 1 and (distinct.stride(0) == 0 or distinct.shape[0] == 1):
        distinct = distinct[0]
    distinct = distinct.reshape(-1, labels.shape[-1])  # [P, N]
    windows, tokens = distinct.shape
    ranked, order = distinct.sort(dim=-1, stable=True)
    begins = torch.ones_like(ranked, dtype=torch.bool)
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = begins.flatten().nonzero().flatten()  # [S] places in [P * N]
    end = torch.cat((first[1:], first.new_tensor([windows * tokens])))
    window = first // tokens
    segment = torch.arange(len(first), device=first.device)
    rows = torch.stack((segment, window, first - window * tokens, end - window * tokens, end - first), dim=1)
    repeats = (rows[:, 4] + tile_size - 1) // tile_size
    tiles = rows.repeat_interleave(repeats, dim=0)
    number = torch.arange(len(tiles), device=first.device) - (repeats.cumsum(0) - repeats)[tiles[:, 0]]
    tiles[:, 2] += number * tile_size
    return Segments(
        labels, windows, order.int().contiguous(), rows.int().contiguous(), tiles.int().contiguous()
    )
