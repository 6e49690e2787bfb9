"""Trace quickly: operators on the meta device, and loops of TaylorShift's forms, run once a shape.

Many operators have their shapes worked out in Python on the meta device, which takes longer than a small
product; :func:`run_once` remembers what came of them.

The fast forms (:mod:`taylorir.attention.kernels.efficient`) work through portions of windows and heads and
chunks of tokens, by an :class:`~taylorir.attention.kernels.segments.Execution`. Without contents only their
allocations count, and these are the same in every round and for every call of the same shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from taylorir.attention.kernels.segments import Execution, Portion, Segment, executing, whole_windows
from taylorir.cost.allocations import AllocationTrace, Template
from taylorir.networks import window_regions

_templates: dict[tuple, Template] = {}
"""Events of the calls seen so far, by shapes. They depend on nothing else, so they are kept from trace to
trace."""


class KnownRegions(Execution):
    """Lets the forms see the labels of shifted windows, which have no values on fake tensors nor on the meta
    device.

    Args:
        batch: images.
        side: of the token grid, a multiple of the window.
        window: side of a window; the shift is half of it.
    """

    def __init__(self, batch: int, side: int, window: int) -> None:
        self._batch, self._place = batch, (side, side, window, window // 2, torch.device("cpu"))

    @functools.cached_property
    def _found(self) -> list[Segment]:
        with _disable_current_modes():
            labels = window_regions(*self._place).repeat(self._batch, 1)
            return super().segments(labels, labels)

    def segments(self, queries: Tensor, keys: Tensor) -> list[Segment]:
        """Segments of tensors like the labels; queries and keys are the same tokens."""
        found = []
        for part in self._found:
            windows, tokens = (_on(queries.device, x) for x in (part.windows, part.queries))
            found.append(Segment(windows, tokens, tokens))
        return found


class WholeWindows(Execution):
    """Takes a window as one region, as labels without values say nothing; that is nearly as costly."""

    def segments(self, queries: Tensor, keys: Tensor) -> list[Segment]:
        """One segment of all tokens."""
        return whole_windows(*queries.shape, keys.shape[1])


def windows_as_wholes() -> AbstractContextManager:
    """Within the block networks without contents run, their shifted windows as whole ones."""
    return executing(WholeWindows())


def _on(device: torch.device, part: slice | Tensor) -> slice | Tensor:
    return torch.empty(part.shape, dtype=part.dtype, device=device) if isinstance(part, Tensor) else part


class RecordedOnce(Execution):
    """Records a form with shortened loops, and replays what was recorded for shapes that come again.

    The tensors that it returns have the right shapes and no meaning, so this is for tensors without contents.

    Args:
        trace: where the events go.
        inner: what finds the segments.
    """

    def __init__(self, trace: AllocationTrace, inner: Execution) -> None:
        self._trace, self._inner = trace, inner

    def segments(self, queries: Tensor, keys: Tensor) -> list[Segment]:
        """Those of the inner execution."""
        return self._inner.segments(queries, keys)

    def portions(self, portions: Iterable[Portion]) -> Iterator[Portion]:
        """Three of each run of equal portions, with three of each run of equal chunks."""
        for portion in _rounds(self._trace, list(portions), _portion_shape):
            queries = _Chunks(self._trace, portion.query_chunks)
            keys = _Chunks(self._trace, portion.key_chunks)
            yield dataclasses.replace(portion, query_chunks=queries, key_chunks=keys)

    def call(
        self, run: Callable[..., list[Tensor | None]], tensors: Sequence[Tensor], **rest: object
    ) -> list[Tensor | None]:
        """Run a pass once for each shape of its tensors and segments."""
        parts = tuple((_length(p.windows), _length(p.queries), _length(p.keys)) for p in rest["segments"])
        key = (run, parts, rest.get("needs_temperature"), *map(_layout, tensors))
        if key in _templates:
            return self._trace.replay(_templates[key])
        start = self._trace.position
        results = run(*tensors, **rest)
        _templates[key] = self._trace.template(start, results)
        return results


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


def _portion_shape(portion: Portion) -> tuple:
    chunks = (tuple(map(_length, part)) for part in (portion.query_chunks, portion.key_chunks))
    return (_length(portion.windows), _length(portion.heads), *chunks)


def _length(part: slice | Tensor) -> tuple[int, bool]:
    if isinstance(part, slice):
        return part.stop - part.start, True
    return part.shape[0], False


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
