"""Trace quickly: operators on the meta device, and loops of TaylorShift's efficient form, run once a shape.

Many operators have their shapes worked out in Python on the meta device, which takes longer than a small
product; :func:`run_once` remembers what came of them.

The chunked form (:mod:`taylorir.attention.kernels.efficient`) works through portions of windows and heads and
chunks of tokens. Without contents only its allocations count, and these are the same in every round and for
every call of the same shapes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from taylorir.attention import operator as attention
from taylorir.attention.kernels import efficient, segments
from taylorir.cost.allocations import AllocationTrace, Template
from taylorir.networks import window_regions

_templates: dict[tuple, Template] = {}
"""Events of the calls seen so far, by shapes. They depend on nothing else, so they are kept from trace to
trace."""


@contextmanager
def known_regions(batch: int, side: int, window: int) -> Iterator[None]:
    """Let the efficient form see the labels of shifted windows, which have no values on fake tensors nor on
    the meta device.

    Args:
        batch: images.
        side: of the token grid, a multiple of the window.
        window: side of a window; the shift is half of it.
    """
    found: list[segments.Segment] = []

    def segments_of_labels(regions: Tensor) -> list[segments.Segment]:
        if not found:
            with _disable_current_modes():
                place = (side, side, window, window // 2, torch.device("cpu"))
                labels = window_regions(*place)
                found.extend(real(labels.repeat(batch, 1)))
        device = regions.device
        return [segments.Segment(_on(device, part.windows), _on(device, part.tokens)) for part in found]

    real, segments.segments_of_labels = segments.segments_of_labels, segments_of_labels
    try:
        yield
    finally:
        segments.segments_of_labels = real


def _on(device: torch.device, part: slice | Tensor) -> slice | Tensor:
    return torch.empty(part.shape, dtype=part.dtype, device=device) if isinstance(part, Tensor) else part


@contextmanager
def efficient_form_traced_once(trace: AllocationTrace) -> Iterator[None]:
    """Record the efficient form with shortened loops, and replay what was recorded for shapes that come
    again.

    The tensors that it returns have the right shapes and no meaning, so this is for tensors without contents.
    """

    def attend(q, k, v, temperature, parts, output_scale) -> Tensor:
        return _Traced.apply(q, k, v, temperature, parts, output_scale, trace)

    def portions(*arguments: object) -> Iterator[segments.Portion]:
        for portion in _rounds(trace, list(real_portions(*arguments)), _portion_shape):
            yield dataclasses.replace(portion, chunks=_Chunks(trace, portion.chunks))

    real_portions, real_attend = efficient.portions, attention.taylor_efficient_chunked
    efficient.portions, attention.taylor_efficient_chunked = portions, attend
    try:
        yield
    finally:
        efficient.portions, attention.taylor_efficient_chunked = real_portions, real_attend


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
    """A portion's chunks, of which a loop sees three of each shape."""

    def __init__(self, trace: AllocationTrace, chunks: Sequence) -> None:
        self._trace, self._chunks = trace, chunks

    def __iter__(self) -> Iterator:
        return _rounds(self._trace, self._chunks, _length)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> object:
        return self._chunks[index]


def _portion_shape(portion: segments.Portion) -> tuple:
    return (_length(portion.windows), _length(portion.heads), *map(_length, portion.chunks))


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
            y = efficient._TaylorEfficient.forward(stand_in, *inputs, parts, output_scale)
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
            return list(efficient._TaylorEfficient.backward(stand_in, dy)[:4])

        key = ("backward", *ctx.key, _layout(dy), ctx.needs_input_grad)
        return (*_once(trace, key, run), None, None, None)


def _layout(tensor: Tensor) -> tuple:
    return (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)


_outcomes: dict[tuple, list[tuple | int | None] | None] = {}
"""By operator and layout of its arguments what it returned: one entry a result, the place of the argument
that it is, or the shape, stride and dtype of a new tensor; None where that does not say all."""

_MOST_OUTCOMES = 20_000


def run_once(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operator on tensors of the meta device, or tell from an earlier run what it returns.

    New tensors with a storage of their own, and arguments that were written to, are told; views are made
    anew each time.
    """
    given = [*args, *kwargs.values()]
    key = (func, *kwargs, *map(_described, given))
    outcome = _outcomes.get(key)
    if outcome is not None:
        results = [_told(entry, given) for entry in outcome]
        return tuple(results) if len(func._schema.returns) > 1 else results[0]
    out = func(*args, **kwargs)
    if key not in _outcomes:
        if len(_outcomes) >= _MOST_OUTCOMES:
            _outcomes.clear()
        _outcomes[key] = _outcome(out, given)
    return out


def _described(x: Any) -> Any:
    if isinstance(x, Tensor):
        return (x.shape, x.stride(), x.dtype)
    return tuple(map(_described, x)) if isinstance(x, list | tuple) else (type(x), x)


def _outcome(out: Any, given: list) -> list[tuple | int | None] | None:
    entries: list[tuple | int | None] = []
    storages = {x.untyped_storage()._cdata for x in _tensors(given)}
    for x in out if isinstance(out, tuple) else (out,):
        place = next((i for i, argument in enumerate(given) if argument is x), None)
        if x is None or place is not None:
            entries.append(place)  # where an argument is None too, its place does as well
            continue
        if not isinstance(x, Tensor) or x.device.type != "meta" or x.untyped_storage()._cdata in storages:
            return None
        alike = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        if alike.untyped_storage().nbytes() != x.untyped_storage().nbytes():
            return None
        storages.add(x.untyped_storage()._cdata)
        entries.append((x.shape, x.stride(), x.dtype))
    return entries


def _tensors(values: Any) -> Iterator[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from _tensors(x)


def _told(entry: tuple | int | None, given: list) -> Tensor | None:
    if not isinstance(entry, tuple):
        return None if entry is None else given[entry]
    shape, stride, dtype = entry
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _once(trace: AllocationTrace, key: tuple, run: Callable[[], list[Tensor]]) -> list[Tensor]:
    if key in _templates:
        return trace.replay(_templates[key])
    start = trace.position
    results = run()
    _templates[key] = trace.template(start, results)
    return results
