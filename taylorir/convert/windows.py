"""Adapters of windows: tokens within a rectangle attend to each other, and rectangles shift.

The masks of shifted windows are made by the block around an attention, so the block has an adapter as well:
where it handed out a mask [nW, N, N] it hands out labels [nW, N].
"""

from __future__ import annotations

from torch import Tensor

from taylorir.convert.adapted import Adapted, Adapter
from taylorir.convert.operator import TaylorAttention, join_heads, split_qkv
from taylorir.convert.regions import shifted_labels
from taylorir.networks import merge


class Padding(Adapter):
    """A network that pads images to multiples of its ``window_size``."""

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)


class SwinWindows(TaylorAttention):
    """Official SwinIR's ``WindowAttention``, and who took it over: tokens of windows in, and a mask."""

    DROPPED = ("relative_position_bias_table", "relative_position_index")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = split_qkv(self.qkv(x), self.num_heads)
        return self.proj_drop(self.proj(join_heads(self.attend(q, k, v, mask))))

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = window


class SwinBlock(Adapted):
    """The block around :class:`SwinWindows`."""

    DROPPED = ("attn_mask",)

    def calculate_mask(self, x_size: tuple[int, int]) -> Tensor:
        window, shift = (self.window_size,) * 2, (self.shift_size,) * 2
        return shifted_labels(*x_size, window, shift)

    @property
    def attn_mask(self) -> Tensor | None:
        return self.calculate_mask(self.input_resolution) if self.shift_size else None

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)
        self.shift_size = self.window_size // 2 if self.shift_size else 0


class DATWindows(TaylorAttention):
    """DAT's ``Spatial_Attention`` and RGT's ``WindowAttention``: a half of the channels, upright or lying."""

    DROPPED = ("pos", "rpe_biases", "relative_position_index")

    def forward(self, qkv: Tensor, H: int, W: int, mask: Tensor | None = None) -> Tensor:
        q, k, v = (self.im2win(x, H, W) for x in qkv)
        y = join_heads(self.attend(q, k, v, mask))
        return merge(y.unflatten(0, (qkv.shape[1], -1)), H, W, self.H_sp, self.W_sp)

    def set_window(self, window: tuple[int, int]) -> None:
        self.split_size = list(window)
        self.H_sp, self.W_sp = window if self.idx == 0 else window[::-1]


class DATBlock(Adapted):
    """DAT's ``Adaptive_Spatial_Attention``, which shifts and pads both halves."""

    DROPPED = ("attn_mask_0", "attn_mask_1")

    def calculate_mask(self, H: int, W: int, dtype: object = None) -> tuple[Tensor, Tensor]:
        window, shift = tuple(self.split_size), tuple(self.shift_size)
        return shifted_labels(H, W, window, shift), shifted_labels(H, W, window[::-1], shift[::-1])

    @property
    def attn_mask_0(self) -> Tensor:
        return self.calculate_mask(self.patches_resolution, self.patches_resolution)[0]

    @property
    def attn_mask_1(self) -> Tensor:
        return self.calculate_mask(self.patches_resolution, self.patches_resolution)[1]

    def set_window(self, window: tuple[int, int]) -> None:
        self.split_size = list(window)
        self.shift_size = [window[0] // 2, window[1] // 2]


def square(window: tuple[int, int]) -> int:
    """The side of a window where a family has square ones.

    Raises:
        ValueError: it is not square.
    """
    if window[0] != window[1]:
        raise ValueError(f"window_size must be square here, got {window[0]} x {window[1]}")
    return window[0]
