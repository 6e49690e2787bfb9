"""Which tokens are worked on together: segments that attend among themselves, cut to fit in cache.

Shape legend: x [B, H, N, width]; labels [B, N]; G = windows x heads of a portion; C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CACHED_NUMBERS = 1 << 20
"""Numbers of a portion's largest array: 4 MiB in float32, which stays in cache."""

GPU_NUMBERS = 1 << 27
"""The same on a GPU, where a kernel's launch costs more than a cache saves: 512 MiB."""


@dataclass(frozen=True)
class Segment:
    """Tokens of some windows that attend among themselves: the same tokens in each of these windows.

    Attributes:
        windows: a slice of the batch, or indices [..]; indices wherever ``queries`` and ``keys`` are indices.
        queries: a slice of the tokens, or their indices [..].
        keys: likewise; the same object as ``queries`` where queries and keys are the same tokens.
    """

    windows: slice | Tensor
    queries: slice | Tensor
    keys: slice | Tensor


@dataclass(frozen=True)
class Portion:
    """The part of a segment that is worked on at once: some windows and heads, their tokens in chunks."""

    windows: slice | Tensor
    heads: slice
    query_chunks: Sequence[slice | Tensor]
    key_chunks: Sequence[slice | Tensor]

    @property
    def num_heads(self) -> int:
        return self.heads.stop - self.heads.start

    def load(self, x: Tensor, chunk: slice | Tensor) -> Tensor:
        """The numbers of a chunk, tokens last: [B, H, N, width] -> [windows, heads, width, C]."""
        if isinstance(chunk, slice):
            return x[self.windows, self.heads, chunk].mT
        return x[self.windows[:, None], self.heads, chunk].permute(0, 2, 3, 1)

    def store(self, x: Tensor, chunk: slice | Tensor, values: Tensor, factors: Tensor | None = None) -> None:
        """Write values [G, width, C], times factors [G, 1, C] if given, to where ``load`` reads."""
        values = values.unflatten(0, (-1, self.num_heads))
        factors = None if factors is None else factors.unflatten(0, (-1, self.num_heads))
        if isinstance(self.windows, slice):
            target = self.load(x, chunk)
            target.copy_(values) if factors is None else torch.mul(values, factors, out=target)
            return
        values = (values if factors is None else values * factors).to(x.dtype)
        if isinstance(chunk, slice):
            x[self.windows, self.heads, chunk] = values.mT
        else:
            x[self.windows[:, None], self.heads, chunk] = values.permute(0, 3, 1, 2)


def whole_windows(batch: int, num_queries: int, num_keys: int) -> list[Segment]:
    """One segment: every query of a window attends to every key of it."""
    return [Segment(slice(0, batch), *_all_tokens(num_queries, num_keys))]


def _all_tokens(num_queries: int, num_keys: int) -> tuple[slice, slice]:
    queries = slice(0, num_queries)
    return queries, queries if num_keys == num_queries else slice(0, num_keys)


def segments_of_labels(queries: Tensor, keys: Tensor) -> list[Segment]:
    """The segments of integer labels [B, N] of the queries and of the keys; equal ones attend to each other.

    Windows of equal labels are taken together. Queries without a key, and keys without a query, are in none.
    """
    rows = queries.cpu().numpy()
    key_rows = rows if keys is queries else keys.cpu().numpy()
    windows_of: dict[bytes, list[int]] = {}
    for window, (row, key_row) in enumerate(zip(rows, key_rows, strict=True)):
        whole = (row == key_row[0]).all() and (key_row == key_row[0]).all()
        pattern = b"" if whole else row.tobytes() + key_row.tobytes()
        windows_of.setdefault(pattern, []).append(window)
    segments = []
    for pattern, numbers in windows_of.items():
        windows = torch.tensor(numbers, device=queries.device)
        if not pattern:
            windows = slice(0, len(rows)) if len(numbers) == len(rows) else windows
            segments += [Segment(windows, *_all_tokens(queries.shape[1], keys.shape[1]))]
            continue
        row, key_row = rows[numbers[0]], key_rows[numbers[0]]
        for label in np.intersect1d(row, key_row):
            of_queries = torch.from_numpy(np.flatnonzero(row == label)).to(queries.device)
            of_keys = of_queries if keys is queries else torch.from_numpy(np.flatnonzero(key_row == label))
            segments.append(Segment(windows, of_queries, of_keys.to(queries.device)))
    return segments


def labels_of_segments(segments: list[Segment], q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [B, N] of the queries and of the keys of q and k [B, H, N, d] that have these segments."""
    queries, keys = (  # what is in no segment attends to nothing
        torch.full((x.shape[0], x.shape[2]), none, device=x.device) for x, none in ((q, -1), (k, -2))
    )
    for label, part in enumerate(segments):
        for labels, tokens in ((queries, part.queries), (keys, part.keys)):
            windows = part.windows[:, None] if isinstance(tokens, Tensor) else part.windows
            labels[windows, tokens] = label
    return queries, keys


def output_memory(
    q: Tensor, v: Tensor, dtype: torch.dtype, segments: list[Segment] | None = None
) -> tuple[Tensor, Tensor]:
    """Memory for y [B, H, N, d_v], laid out as v is, and for 1 / b [B, H, N, 1]; zero where no key is met."""
    like = v if v.shape[2] == q.shape[2] else v[:, :, :1].expand(-1, -1, q.shape[2], -1)
    y = torch.empty_like(like, dtype=dtype)
    inverse = q.new_empty((*q.shape[:-1], 1), dtype=dtype)
    if segments is not None and not _cover(segments, q, "queries"):
        y.zero_()
        inverse.zero_()
    return y, inverse


def gradient_memory(
    q: Tensor, k: Tensor, v: Tensor, segments: list[Segment]
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for dq, dk and dv; zero for tokens that are in no segment."""
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    if not _cover(segments, q, "queries"):
        dq.zero_()
    if not _cover(segments, k, "keys"):
        dk.zero_()
        dv.zero_()
    return dq, dk, dv


def _cover(segments: list[Segment], x: Tensor, side: str) -> bool:
    """Whether each token of x [B, H, N, d] is in a segment, on the side "queries" or "keys"."""
    tokens = sum(_length(part.windows) * _length(getattr(part, side)) for part in segments)
    return tokens == x.shape[0] * x.shape[2]


def portions(
    segments: list[Segment], q: Tensor, max_chunk: int, numbers_per_token: int | None = None
) -> Iterator[Portion]:
    """Cut segments into portions of which the largest array has about ``CACHED_NUMBERS`` numbers.

    Args:
        segments: what to cut.
        q: [B, H, N, d], for its heads and its device.
        max_chunk: the most tokens of a chunk; on a GPU there is no such limit.
        numbers_per_token: of the largest array, a head; None: as many as the segment has keys, which then are
            not cut.
    """
    heads = q.shape[1]
    on_gpu = q.device.type not in ("cpu", "meta")
    for segment in segments:
        num_windows = _length(segment.windows)
        numbers = numbers_per_token or _length(segment.keys)
        head_tokens = max((GPU_NUMBERS if on_gpu else CACHED_NUMBERS) // numbers, 1)
        size = max(head_tokens // max(min(heads * num_windows, 6), 1), 128)
        size = size if on_gpu else min(size, max_chunk)
        query_chunks = key_chunks = _chunks(segment.queries, size)
        if numbers_per_token is None:
            key_chunks = (segment.keys,)
        elif segment.keys is not segment.queries:
            key_chunks = _chunks(segment.keys, size)
        longest = max(_length(query_chunks[0]), _length(key_chunks[0]) if numbers_per_token else 0)
        group = max(head_tokens // longest, 1)
        heads_at_once = -(-heads // -(-heads // group))
        windows_at_once = max(group // heads, 1)
        for i in range(0, num_windows, windows_at_once):
            windows = _part(segment.windows, i, i + windows_at_once)
            for h in range(0, heads, heads_at_once):
                at_once = slice(h, min(h + heads_at_once, heads))
                yield Portion(windows, at_once, query_chunks, key_chunks)


def _chunks(tokens: slice | Tensor, size: int) -> tuple[slice | Tensor, ...]:
    """Chunks of equal size, at most ``size``."""
    length = _length(tokens)
    size = -(-length // -(-length // size))
    return tuple(_part(tokens, i, i + size) for i in range(0, length, size))


def _length(part: slice | Tensor) -> int:
    return part.stop - part.start if isinstance(part, slice) else len(part)


def _part(whole: slice | Tensor, start: int, stop: int) -> slice | Tensor:
    if isinstance(whole, slice):
        return slice(whole.start + start, min(whole.start + stop, whole.stop))
    return whole[start:stop]


class Execution:
    """How the fast forms run. As it is, they just run; a subclass follows them, see :func:`executing`."""

    def segments(self, queries: Tensor, keys: Tensor) -> list[Segment]:
        """The segments of labels [B, N], one object if queries and keys are the same tokens."""
        return segments_of_labels(queries, keys)

    def portions(self, portions: Iterable[Portion]) -> Iterable[Portion]:
        """What a pass loops through: its portions, and the chunks of each."""
        return portions

    def call(
        self, run: Callable[..., list[Tensor | None]], tensors: Sequence[Tensor], **rest: object
    ) -> list[Tensor | None]:
        """Run the forward or backward pass of a form: new tensors from old ones."""
        return run(*tensors, **rest)


_execution: ContextVar[Execution | None] = ContextVar("_execution", default=None)


@contextmanager
def executing(execution: Execution) -> Iterator[None]:
    """Let the fast forms run by ``execution`` within the block, on tensors without contents too.

    This is for those who account for what the forms do: fake tensors otherwise see one opaque operator.
    """
    token = _execution.set(execution)
    try:
        yield
    finally:
        _execution.reset(token)


def current_execution() -> Execution | None:
    """That of the innermost :func:`executing` block."""
    return _execution.get()
