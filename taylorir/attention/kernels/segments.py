"""Which tokens are worked on together: segments that attend among themselves, cut to fit in cache.

Shape legend: x [B, H, N, width]; regions [B, N]; G = windows x heads of a portion; C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from taylorir.attention.kernels.arithmetic import multiply

CACHED_NUMBERS = 1 << 20  # numbers of a portion's largest array: 4 MiB in float32, which stays in cache


@dataclass(frozen=True)
class Segment:
    """Tokens of some windows that attend among themselves: the same tokens in each of these windows.

    Attributes:
        windows: a slice of the batch, or indices [..]; indices wherever ``tokens`` are indices.
        tokens: a slice of the tokens, or their indices [..].
    """

    windows: slice | Tensor
    tokens: slice | Tensor


@dataclass(frozen=True)
class Portion:
    """The part of a segment that is worked on at once: some windows and heads, their tokens in chunks."""

    windows: slice | Tensor
    heads: slice
    tokens: slice | Tensor
    chunks: tuple[slice | Tensor, ...]

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
            target.copy_(values) if factors is None else multiply(values, factors, target)
            return
        values = (values if factors is None else values * factors).to(x.dtype)
        if isinstance(chunk, slice):
            x[self.windows, self.heads, chunk] = values.mT
        else:
            x[self.windows[:, None], self.heads, chunk] = values.permute(0, 3, 1, 2)


def in_segments(
    attend: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    regions: Tensor | None,
    output_scale: float,
) -> Tensor:
    """Call ``attend`` on q, k, v [..., H, N, width] with one batch axis, and regions [..., N] as segments."""
    if q.ndim != 4:
        flat = (x.flatten(0, -4) if x.ndim > 4 else x[None] for x in (q, k, v))
        return in_segments(attend, *flat, temperature, regions, output_scale).view(v.shape)
    if regions is None:
        segments = whole_windows(q.shape[0], q.shape[2])
    else:
        segments = segments_of_labels(regions.reshape(-1, regions.shape[-1]))
    return attend(q, k, v, temperature, segments, output_scale)


def whole_windows(batch: int, num_tokens: int) -> list[Segment]:
    """One segment: every token of a window attends to every other."""
    return [Segment(slice(0, batch), slice(0, num_tokens))]


def segments_of_labels(regions: Tensor) -> list[Segment]:
    """The segments of integer labels [B, N]: windows of equal labels are taken together.

    Labels of a FakeTensor have no values; each window then counts as one region, which costs nearly the same.
    """
    if isinstance(regions, FakeTensor) or regions.is_meta:
        return whole_windows(*regions.shape)
    windows_of: dict[bytes, list[int]] = {}
    for window, row in enumerate(regions.cpu().numpy()):
        windows_of.setdefault(b"" if (row == row[0]).all() else row.tobytes(), []).append(window)
    segments = []
    for key, numbers in windows_of.items():
        windows = torch.tensor(numbers, device=regions.device)
        if not key:
            windows = slice(0, len(regions)) if len(numbers) == len(regions) else windows
            segments.append(Segment(windows, slice(0, regions.shape[1])))
            continue
        row = regions[numbers[0]]
        segments += [Segment(windows, (row == label).nonzero().squeeze(1)) for label in row.unique()]
    return segments


def portions(
    segments: list[Segment], heads: int, numbers_per_token: int | None, max_chunk: int
) -> Iterator[Portion]:
    """Cut segments into portions of which the largest array has about ``CACHED_NUMBERS`` numbers.

    Args:
        segments: what to cut.
        heads: H.
        numbers_per_token: its numbers for a token of a head; None: as many as the segment has tokens.
        max_chunk: the most tokens of a chunk.
    """
    for segment in segments:
        num_tokens, num_windows = _length(segment.tokens), _length(segment.windows)
        head_tokens = max(CACHED_NUMBERS // (numbers_per_token or num_tokens), 1)
        size = min(max_chunk, max(head_tokens // max(min(heads * num_windows, 6), 1), 128))
        size = -(-num_tokens // -(-num_tokens // size))  # chunks of equal size
        group = max(head_tokens // size, 1)
        heads_at_once = -(-heads // -(-heads // group))
        windows_at_once = max(group // heads, 1)
        chunks = tuple(_part(segment.tokens, i, i + size) for i in range(0, num_tokens, size))
        for i in range(0, num_windows, windows_at_once):
            windows = _part(segment.windows, i, i + windows_at_once)
            for h in range(0, heads, heads_at_once):
                yield Portion(windows, slice(h, min(h + heads_at_once, heads)), segment.tokens, chunks)


def _length(part: slice | Tensor) -> int:
    return part.stop - part.start if isinstance(part, slice) else len(part)


def _part(whole: slice | Tensor, start: int, stop: int) -> slice | Tensor:
    if isinstance(whole, slice):
        return slice(whole.start + start, min(whole.start + stop, whole.stop))
    return whole[start:stop]
