"""Adapters of windows: tokens within a rectangle attend to each other, and rectangles shift.

The masks of shifted windows are made by the block around an attention, or by the network, so these have
adapters as well: where they handed out a mask [nW, N, N] they hand out labels [nW, N].
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from taylorir.convert.adapted import Adapted, Adapter
from taylorir.convert.operator import TaylorAttention, join_heads, split_heads, split_qkv
from taylorir.convert.regions import shifted_labels
from taylorir.networks import merge, partition


def square(window: tuple[int, int]) -> int:
    """The side of a window where a family has square ones.

    Raises:
        ValueError: it is not square.
    """
    if window[0] != window[1]:
        raise ValueError(f"window_size must be square here, got {window[0]} x {window[1]}")
    return window[0]


def attend_in_windows(
    module: TaylorAttention,
    x: Tensor,
    qkv: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    window: tuple[int, int],
    shift: tuple[int, int] = (0, 0),
) -> Tensor:
    """All of the attention of a family that does it in one place: [B, H, W, C] to the same.

    Args:
        x: padded with zeros to multiples of the window.
        qkv: gives [..., 3 H d] of tokens [..., C].
        project: takes the heads, [..., H d].
    """
    height, width = x.shape[1:3]
    x = functional.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    size = x.shape[1:3]
    parts = partition(x.roll((-shift[0], -shift[1]), (1, 2)), *window).flatten(0, 1)
    labels = shifted_labels(*size, window, shift, x.device) if any(shift) else None
    y = project(join_heads(module.attend(*split_qkv(qkv(parts), module.count_heads()), labels)))
    y = merge(y.unflatten(0, (len(x), -1)), *size, *window).roll(shift, (1, 2))
    return y[:, :height, :width]


class Padding(Adapter):
    """A network that pads images to multiples of its ``window_size``."""

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)


# --- SwinIR and who took it over: Swin2SR, DRCT, HAT, ATD ---------------------------------------------


class SwinWindows(TaylorAttention):
    """SwinIR's ``WindowAttention``: tokens of windows in, and a mask."""

    DROPPED = ("relative_position_bias_table", "relative_position_index")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        return self.proj_drop(self.proj(join_heads(self.attend(q, k, v, mask))))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_qkv(self.qkv(x), self.num_heads)

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = window


class SwinBlock(Adapted):
    """The block around :class:`SwinWindows`."""

    DROPPED = ("attn_mask",)

    def calculate_mask(self, x_size: tuple[int, int]) -> Tensor:
        return shifted_labels(*x_size, (self.window_size,) * 2, (self.shift_size,) * 2)

    @property
    def attn_mask(self) -> Tensor | None:
        return self.calculate_mask(self.input_resolution) if self.shift_size else None

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)
        self.shift_size = self.window_size // 2 if self.shift_size else 0


class Swin2SRWindows(SwinWindows):
    """Swin2SR's ``WindowAttention``, one of cosines already: its scale is what the temperature is here."""

    DROPPED = ("logit_scale", "cpb_mlp", "relative_coords_table", "relative_position_index")

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.q_bias is not None:
            q, v = q + self.q_bias, v + self.v_bias
        return tuple(split_heads(part, self.num_heads) for part in (q, k, v))


class HATWindows(SwinWindows):
    """HAT's ``WindowAttention``, which is given its index map."""

    DROPPED = ("relative_position_bias_table",)

    def forward(self, x: Tensor, rpi: None, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, mask)


class HATBlock(Adapter):
    """HAT's ``HAB``, to which the network gives labels."""

    def set_window(self, window: tuple[int, int]) -> None:
        SwinBlock.set_window(self, window)


class HATNetwork(Adapted):
    """HAT and ATD, which make masks and index maps for all their blocks."""

    DROPPED = ("relative_position_index_SA", "relative_position_index_OCA")
    relative_position_index_SA = relative_position_index_OCA = None

    def calculate_mask(self, x_size: tuple[int, int], dtype: object = None) -> Tensor:
        window = self.window_size
        return shifted_labels(*x_size, (window,) * 2, (window // 2,) * 2)

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)
        self.shift_size = self.window_size // 2


class ATDWindows(TaylorAttention):
    """ATD's ``WindowAttention``, which is given q, k, v."""

    DROPPED = ("relative_position_bias_table",)

    def forward(self, qkv: Tensor, rpi: None, mask: Tensor | None = None) -> Tensor:
        return self.proj(join_heads(self.attend(*split_qkv(qkv, self.num_heads), mask)))

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = window


# --- DAT and who shares its rectangles: RGT, CRAFT ----------------------------------------------------


class DATWindows(TaylorAttention):
    """A half of the channels in rectangles, upright or lying, of DAT, RGT and CRAFT."""

    kind = "rectangle"
    DROPPED = ("pos", "rpe_biases", "relative_position_index")

    def forward(self, qkv: Tensor, H: int, W: int, mask: Tensor | None = None, **positions: Tensor) -> Tensor:
        q, k, v = (self.im2win(x, H, W) for x in qkv)
        y = join_heads(self.attend(q, k, v, mask))
        return merge(y.unflatten(0, (qkv.shape[1], -1)), H, W, self.H_sp, self.W_sp)

    def set_window(self, window: tuple[int, int]) -> None:
        self.split_size = list(window)
        self.H_sp, self.W_sp = window if self.idx == 0 else window[::-1]


class DATBlock(Adapted):
    """DAT's ``Adaptive_Spatial_Attention`` and RGT's ``L_SA``, which pad and shift both halves."""

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


class CRAFTBlock(Adapter):
    """CRAFT's ``SRWAB``, which shifts without a mask."""

    def set_window(self, window: tuple[int, int]) -> None:
        self.shift_size = [side // 2 if any(self.shift_size) else 0 for side in window]


class CRAFTNetwork(Adapted):
    """CRAFT, which makes index maps for all its blocks."""

    DROPPED = ("relative_position_index_h", "relative_position_index_v", "biases_h", "biases_v")
    relative_position_index_h = relative_position_index_v = biases_h = biases_v = None

    def set_window(self, window: tuple[int, int]) -> None:
        if max(window) % min(window):
            raise ValueError(f"one side of CRAFT's window must divide the other, got {window}")
        self.split_size, self.window_size = window, max(window)


# --- others -------------------------------------------------------------------------------------------


class OmniSRWindows(TaylorAttention):
    """OmniSR's ``Attention``, over windows and over grids: [B, rows, columns, w, w, C] in."""

    DROPPED = ("rel_pos_bias", "rel_pos_indices")

    def count_heads(self) -> int:
        return self.heads

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(*split_qkv(self.to_qkv(x.flatten(3, 4)), self.heads))
        return self.to_out(join_heads(y).reshape(x.shape))


class OmniSRBlock(Adapted):
    """OmniSR's ``OSA_Block``, which cuts windows and grids, and has attention over channels in windows."""

    def set_window(self, window: tuple[int, int]) -> None:
        side = square(window)
        for i, part in enumerate(self.layer):
            if getattr(part, "axes_lengths", None):  # einops
                self.layer[i] = type(part)(part.pattern, w1=side, w2=side)
        for module in self.modules():
            if hasattr(module, "ps"):
                module.ps = side


class SCUNetWindows(TaylorAttention):
    """SCUNet's ``WMSA``: [B, H, W, C] in."""

    DROPPED = ("relative_position_params",)

    def count_heads(self) -> int:
        return self.n_heads

    def forward(self, x: Tensor) -> Tensor:
        window = (self.window_size,) * 2
        shift = (0, 0) if self.type == "W" else (self.window_size // 2,) * 2
        return attend_in_windows(self, x, self.embedding_layer, self.linear, window, shift)

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)


class FDATWindows(TaylorAttention):
    """FDAT's ``FastSpatialWindowAttention``, which never shifts: [B, H W, C] in."""

    DROPPED = ("bias",)

    def count_heads(self) -> int:
        return self.nh

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        x = x.unflatten(1, (H, W))
        return attend_in_windows(self, x, self.qkv, self.proj, (self.ws, self.ws)).flatten(1, 2)

    def set_window(self, window: tuple[int, int]) -> None:
        self.ws = square(window)
