"""Softmax attention within windows, as in SwinIR (arXiv 2108.10257): naive as in its code, or fused.

Shape legend
    B     images of a batch
    H, W  height and width of the token grid
    C     channels (``embed_dim``)
    w, s  window size and shift
    nW, N windows of an image, tokens of a window
    d     width of a head
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from taylorir.attention import softmax_fused, softmax_has_kernels, token_layers
from taylorir.networks.config import ModelConfig
from taylorir.networks.placement import PART_TOKENS, may_go_in_parts
from taylorir.networks.position import RIB, LePE, rope_2d
from taylorir.networks.windows import (
    bands,
    from_windows,
    kept_places,
    kept_regions,
    merge,
    official_index,
    partition,
    position_bias,
    rectangles,
    to_windows,
    window_mask,
)

OFFICIAL_BUFFER_TOKENS = 256
"""Up to this many tokens a window, ``state_dict`` lists the index and mask buffers of the authors' files."""


class WindowAttention(nn.Module):
    """Softmax attention within windows, with a relative position bias (:eq:`eq-window-attention`)."""

    def __init__(self, config: ModelConfig, num_heads: int, shift_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = config.embed_dim // num_heads
        self.window_size = config.window_size
        self.shift_size = shift_size
        self.position = config.position
        self.softmax_backend = config.softmax_backend
        self.rolled = config.softmax_backend == "naive"
        if config.position == "bias":
            table = torch.empty((2 * config.window_size - 1) ** 2, num_heads)
            self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.lepe = LePE(config.embed_dim) if config.position == "lepe" else None
        self.rib = RIB(num_heads, self.head_dim) if config.position == "rib" else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        if may_go_in_parts(x) and self.has_parts():
            y = torch.empty_like(x)
            for attend, (given, wanted) in self.parts(x, y):
                wanted.copy_(attend(given).view(wanted.shape))
            return y
        y = self.attend(x)
        if self.lepe is not None:
            y, values = y.chunk(2, -1)
            y = y + self.lepe(values)
        return self.proj(y)

    def attend(self, x: Tensor) -> Tensor:
        """Attention of all windows, before the projection: [B, H, W, C] to the same.

        The position "lepe" convolves v across windows, so there v is given too: [B, H, W, 2 C].
        """
        height, width = x.shape[1:3]
        whole = height % self.window_size == 0 and width % self.window_size == 0
        if whole and (self.rolled or self._is_quicker_rolled(x)):
            return self._in_rolled_windows(x)
        return self._in_bands(x)

    def _is_quicker_rolled(self, x: Tensor) -> bool:
        """Whether one call with labels beats nine without: where few windows lie at a border, in kernels."""
        few = self.shift_size > 0 and min(x.shape[1:3]) >= 4 * self.window_size
        return few and self.softmax_backend != "sdpa" and softmax_has_kernels(x)

    def _in_rolled_windows(self, x: Tensor) -> Tensor:
        """:meth:`attend` to all windows of the rolled image at once, as the original does."""
        height, width = x.shape[1:3]
        grid = (self.window_size, self.shift_size)
        q, k, v = self._heads(to_windows(x, *grid), self.window_size, self.window_size, (height, width))
        y = self._joined(self.of_rolled(q, k, v, (height, width)), v)
        return from_windows(y, height, width, *grid)

    def _in_bands(self, x: Tensor) -> Tensor:
        """:meth:`attend` to the rectangles that the shifted grid leaves, those of a shape at once."""
        rows = []
        for top, height, tall in bands(x.shape[1], self.window_size, self.shift_size):
            row = []
            for left, width, wide in bands(x.shape[2], self.window_size, self.shift_size):
                part = partition(x[:, top : top + height, left : left + width], tall, wide)
                y = self._in_rectangles(part, tall, wide, self.bias(tall, wide))
                row.append(merge(y, height, width, tall, wide))
            rows.append(torch.cat(row, 2) if len(row) > 1 else row[0])
        return torch.cat(rows, 1) if len(rows) > 1 else rows[0]

    def has_parts(self) -> bool:
        """Whether some windows attend without a look at the others, and are worth to be taken alone."""
        return (
            type(self).forward is WindowAttention.forward
            and self.lepe is None
            and self.softmax_backend != "naive"
        )

    def parts(self, *images: Tensor) -> Iterator[tuple[Callable[[Tensor], Tensor], list[Tensor]]]:
        """A few rectangles at a time (:mod:`taylorir.networks.placement`), all together those of the image.

        Args:
            images: of one shape [B, H, W, C].

        Yields:
            :meth:`forward` for these rectangles, from [B, .., C] to [B, n, N, C], n of N tokens; and of each
            image a view of them [B, rows, columns, tall, wide, C].
        """
        batch, height, width, _ = images[0].shape
        for top, high, tall in bands(height, self.window_size, self.shift_size):
            for left, broad, wide in bands(width, self.window_size, self.shift_size):
                here = (slice(None), slice(top, top + high), slice(left, left + broad))
                grids = [rectangles(image[here], tall, wide) for image in images]
                attend = functools.partial(self._in_some, tall=tall, wide=wide, bias=self.bias(tall, wide))
                most = max(PART_TOKENS // (batch * tall * wide), 1)
                for part in _parts(*grids[0].shape[1:3], most):
                    yield attend, [grid[part] for grid in grids]

    def _in_some(
        self,
        tokens: Tensor,
        tall: int,
        wide: int,
        bias: Tensor | None,
        norm: nn.LayerNorm | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        windows = tokens.reshape(len(tokens), -1, tall * wide, tokens.shape[-1])
        y = self._in_rectangles(windows, tall, wide, bias, norm).reshape(tokens.shape)
        return token_layers(y, self.proj, residual=residual)

    def _in_rectangles(
        self, tokens: Tensor, tall: int, wide: int, bias: Tensor | None, norm: nn.LayerNorm | None = None
    ) -> Tensor:
        """Attention of rectangles [B, n, N, C], N = tall wide, to the same, or [B, n, N, 2 C] with "lepe".

        Args:
            norm: of the tokens before all else; None: they have had it.
        """
        q, k, v = self._heads(tokens, tall, wide, norm=norm)
        return self._joined(self.of_rectangles(q, k, v, bias), v)

    def _joined(self, y: Tensor, v: Tensor) -> Tensor:
        """Heads of y [B, n, heads, N, d] joined: [B, n, N, C]; under "lepe" v beside it: [B, n, N, 2 C]."""
        if self.lepe is not None:
            y = torch.cat((y, v), -3)
        return y.transpose(-2, -3).flatten(-2)

    def _heads(
        self,
        tokens: Tensor,
        height: int,
        width: int,
        rolled: tuple[int, int] | None = None,
        norm: nn.LayerNorm | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [B, n, heads, N, d] of the tokens [B, n, N, C] of rectangles; q, k wider under "rib".

        Where these are the windows of a rolled image, ``rolled`` is its (H, W).
        """
        qkv = token_layers(tokens, self.qkv, norm=norm).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        if self.position == "rope":
            q, k = rope_2d(q, height, width), rope_2d(k, height, width)
        place = None
        if rolled is not None and self.shift_size:
            place = (*rolled, self.window_size, self.shift_size, tokens.device)
        return *self._positioned(q, k, height, width, place), v

    def _positioned(
        self, q: Tensor, k: Tensor, height: int, width: int, place: tuple | None
    ) -> tuple[Tensor, Tensor]:
        """q, k with what is joined to them; ``place`` says which shifted windows these are."""
        if self.rib is None:
            return q, k
        factors = self.rib(height, width, self.window_size)
        if place is not None:  # the regions of a border window are rectangles of their own
            factors = (x[:, kept_places(*place)].transpose(0, 1) for x in factors)  # [nW, heads, N, R]
        return self.join(q, k, *factors)

    def join(self, q: Tensor, k: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """q, k with the factors of a position bias as further channels."""
        return self.rib.join_softmax(q, k, a, b)

    def bias(self, height: int, width: int) -> Tensor | None:
        """[heads, n, n] of a rectangle of n = height width tokens, or None."""
        if self.position != "bias":
            return None
        return position_bias(self.relative_position_bias_table, self.window_size, height, width)

    def of_rolled(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """Attention of all windows of a rolled image of ``size`` (H, W): q, k, v [B, nW, heads, N, d] to the
        same."""
        bias = self.bias(self.window_size, self.window_size)
        if self.softmax_backend != "naive":
            regions = kept_regions(*size, self.window_size, self.shift_size, q.device)
            return softmax_fused(q, k, v, bias=bias, regions=regions)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT  # [B, nW, heads, N, N]
        if bias is not None:
            scores = scores + bias
        if self.shift_size:
            mask = window_mask(*size, self.window_size, self.shift_size, q.device)
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        return scores.softmax(-1) @ v

    def of_rectangles(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Attention of rectangles, all of whose tokens meet: q, k, v [B, n, heads, N, d] to the same.

        Args:
            bias: that of :meth:`bias`.
        """
        if self.softmax_backend == "naive":
            return _composed(q, k, v, None if bias is None else bias.to(q.dtype))
        return softmax_fused(
            q, k, v, bias=bias, backend="torch" if self.softmax_backend == "sdpa" else "auto"
        )

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.position == "bias" and self.window_size**2 <= OFFICIAL_BUFFER_TOKENS:
            destination[prefix + "relative_position_index"] = official_index(self.window_size)

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        state_dict.pop(prefix + "relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _parts(rows: int, columns: int, most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Indices of a grid [B, rows, columns, ..]: at most so many cells, which are rows or a part of one."""
    down, across = max(most // columns, 1), min(most, columns)
    for i in range(0, rows, down):
        for j in range(0, columns, across):
            yield slice(None), slice(i, i + down), slice(j, j + across)


def _composed(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return (scores if bias is None else scores + bias).softmax(-1) @ v
