"""Trace TaylorShift's efficient form quickly: its many equal loops run a few rounds, and once for each shape.

The chunked form (:mod:`taylorir.kernels.chunked`) works through tiles of windows and heads and chunks of
tokens. On fake tensors only its allocations count, and these are the same in every round and for every call
of the same shapes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from taylorir import attention
from taylorir.allocations import AllocationTrace, Template
from taylorir.kernels import chunked, segments
from taylorir.windows import window_regions

_templates: dict[tuple, Template] = {}
"""Events of the calls seen so far, by shapes. They depend on nothing else, so they are kept from trace to
trace."""


@contextmanager
def known_regions(batch: int, side: int, window: int) -> Iterator[None]:
    """Within ``FakeTensorMode``: let the efficient form see the labels of shifted windows, which have no
    values.

    Args:
        batch: images.
        side: of the token grid, a multiple of the window.
        window: side of a window; the shift is half of it.
    """
    found: list[segments.Segment] = []

    def segments_of(regions: Tensor) -> list[segments.Segment]:
        if not found:
            with _disable_current_modes():
                labels = window_regions(side, side, window, window // 2, torch.device("cpu"))
                found.extend(real(labels.repeat(batch, 1)))
        return [segments.Segment(_fake(part.windows), _fake(part.tokens)) for part in found]

    real, segments.segments_of = segments.segments_of, segments_of
    try:
        yield
    finally:
        segments.segments_of = real


def _fake(part: slice | Tensor) -> slice | Tensor:
    return torch.empty(part.shape, dtype=part.dtype) if isinstance(part, Tensor) else part


@contextmanager
def efficient_form_traced_once(trace: AllocationTrace) -> Iterator[None]:
    """Record the efficient form with shortened loops, and replay what was recorded for shapes that come
    again.

    The tensors that it returns have the right shapes and no meaning, so this is for fake tensors only.
    """

    def attend(q, k, v, temperature, parts, output_scale) -> Tensor:
        return _Traced.apply(q, k, v, temperature, parts, output_scale, trace)

    def tiles(*arguments: object) -> Iterator[segments.Tile]:
        for tile in _rounds(trace, list(real_tiles(*arguments)), _tile_shape):
            yield dataclasses.replace(tile, chunks=_Chunks(trace, tile.chunks))

    real_tiles, real_attend = chunked.tiles, attention.taylor_efficient_chunked
    chunked.tiles, attention.taylor_efficient_chunked = tiles, attend
    try:
        yield
    finally:
        chunked.tiles, attention.taylor_efficient_chunked = real_tiles, real_attend


def _rounds(trace: AllocationTrace, items: Sequence, shape: Callable[[object], object]) -> Iterator:
    """Three of each run of items of equal shape; the last one's events are recorded for all others of the
    run."""
    for _, run in itertools.groupby(items, shape):
        run = list(run)
        starts = []
        for item in run[:3]:
            starts.append(trace.position)
            yield item
        if len(run) > 3:
            trace.repeat(*starts[1:], len(run) - 3)


class _Chunks(Sequence):
    """A tile's chunks, of which a loop sees three of each shape."""

    def __init__(self, trace: AllocationTrace, chunks: Sequence) -> None:
        self._trace, self._chunks = trace, chunks

    def __iter__(self) -> Iterator:
        return _rounds(self._trace, self._chunks, _length)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> object:
        return self._chunks[index]


def _tile_shape(tile: segments.Tile) -> tuple:
    return (_length(tile.windows), _length(tile.heads), *map(_length, tile.chunks))


def _length(part: slice | Tensor) -> tuple[int, bool]:
    if isinstance(part, slice):
        return part.stop - part.start, True
    return part.shape[0], False


class _Traced(torch.autograd.Function):
    """The chunked form, forward and backward recorded once for each shape."""

    @staticmethod
    def forward(ctx, q, k, v, temperature, parts, output_scale, trace):
        saved: list[Tensor] = []
        stand_in = SimpleNamespace(
            save_for_backward=lambda *tensors: saved.extend(tensors), needs_input_grad=ctx.needs_input_grad
        )
        inputs = (q, k, v, temperature)

        def run() -> list[Tensor]:
            y = chunked._TaylorEfficient.forward(stand_in, *inputs, parts, output_scale)
            return [y, *(tensor for tensor in saved if all(tensor is not other for other in (*inputs, y)))]

        ctx.key = (*map(_layout, inputs), tuple((_length(p.windows), _length(p.tokens)) for p in parts))
        y, *states = _once(trace, ("forward", *ctx.key), run)
        ctx.save_for_backward(q, k, v, temperature, y, *states)
        ctx.rest = parts, output_scale, trace
        return y

    @staticmethod
    def backward(ctx, dy):
        saved = ctx.saved_tensors  # held until the end, as by the function itself
        parts, output_scale, trace = ctx.rest
        stand_in = SimpleNamespace(
            saved_tensors=saved,
            segments=parts,
            output_scale=output_scale,
            needs_input_grad=ctx.needs_input_grad,
        )

        def run() -> list[Tensor]:
            return list(chunked._TaylorEfficient.backward(stand_in, dy)[:4])

        key = ("backward", *ctx.key, _layout(dy), ctx.needs_input_grad)
        return (*_once(trace, key, run), None, None, None)


def _layout(tensor: Tensor) -> tuple:
    return (tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _once(trace: AllocationTrace, key: tuple, run: Callable[[], list[Tensor]]) -> list[Tensor]:
    if key in _templates:
        return trace.replay(_templates[key])
    start = trace.position
    results = run()
    _templates[key] = trace.template(start, results)
    return results
