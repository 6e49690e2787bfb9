"""Adapters of attention whose keys are other tokens than its queries: overlapping windows, stripes.

Shape legend
    nW    windows or stripes of an image
    N, M  queries and keys of one of them
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from taylorir.convert.adapted import Adapted
from taylorir.convert.operator import TaylorAttention, join_heads, split_heads
from taylorir.convert.regions import shifted_labels
from taylorir.convert.windows import square
from taylorir.networks import merge, partition


class HATOverlap(TaylorAttention):
    """HAT's ``OCAB``: queries of a window, keys of a larger one around it, zeros beyond the image."""

    kind = "overlapping"
    DROPPED = ("relative_position_bias_table",)

    def forward(self, x: Tensor, x_size: tuple[int, int], rpi: None) -> Tensor:
        window = (self.window_size,) * 2
        q, kv = self.qkv(self.norm1(x)).unflatten(1, x_size).tensor_split((self.dim,), -1)
        around = self.unfold(kv.permute(0, 3, 1, 2)).unflatten(1, (2 * self.dim, -1))  # [B, 2 C, M, nW]
        k, v = around.permute(0, 3, 2, 1).flatten(0, 1).chunk(2, -1)
        parts = (partition(q, *window).flatten(0, 1), k, v)
        y = join_heads(self.attend(*(split_heads(part, self.num_heads) for part in parts)))
        x = x + self.proj(merge(y.unflatten(0, (len(x), -1)), *x_size, *window).flatten(1, 2))
        return x + self.mlp(self.norm2(x))

    def set_window(self, window: tuple[int, int]) -> None:
        side, old = square(window), self.window_size
        self.window_size, self.overlap_win_size = side, side + side * (self.overlap_win_size - old) // old
        margin = (self.overlap_win_size - side) // 2
        self.unfold = nn.Unfold(self.overlap_win_size, stride=side, padding=margin)


class GRLWindows(TaylorAttention):
    """GRL's ``WindowAttention``, of cosines already."""

    DROPPED = ("attn_transform",)
    attn_transform = None

    def attn(self, q, k, v, attn_transform, table, index, mask, reshape: bool = True) -> Tensor:
        if self.euclidean_dist:
            raise ValueError("GRL's Euclidean distances cannot be replaced: they are no products of q and k")
        return join_heads(self.attend(q, k, v, mask))

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = window
        self.shift_size = window[0] // 2 if self.shift_size else 0


class GRLStripes(TaylorAttention):
    """GRL's ``AnchorStripeAttention``: anchors attend to a stripe, then the stripe to what they gathered.

    Of its temperatures the first half is of the anchors, the second of the stripe.
    """

    kind = "stripe"
    DROPPED = ("attn_transform1", "attn_transform2")
    attn_transform1 = attn_transform2 = None

    def count_heads(self) -> int:
        return 2 * self.num_heads

    def attn(self, q, k, v, attn_transform, table, index, mask, reshape: bool = True) -> Tensor:
        if self.euclidean_dist:
            raise ValueError("GRL's Euclidean distances cannot be replaced: they are no products of q and k")
        of_anchors, of_stripe = self.temperature.chunk(2)
        y = self.attend(q, k, v, mask, of_stripe if reshape else of_anchors)
        return join_heads(y) if reshape else y


class GRLNetwork(Adapted):
    """GRL, which makes tables, index maps and masks for all blocks. Its stripes are no windows: they stay."""

    DROPPED = (
        *("table_w", "table_sh", "table_sv", "index_w", "mask_w"),
        *("index_sh_a2w", "index_sh_w2a", "index_sv_a2w", "index_sv_w2a"),
        *("mask_sh_a2w", "mask_sh_w2a", "mask_sv_a2w", "mask_sv_w2a"),
    )

    def get_table_index_mask(self, device: torch.device, input_resolution: tuple[int, int]) -> dict:
        given = defaultdict(lambda: None)  # tables and index maps are asked for, and not used
        given["mask_w"] = shifted_labels(*input_resolution, self.window_size, self.shift_size, device)
        for name, order in (("sh", 1), ("sv", -1)):
            places = (self.stripe_size[::order], self.stripe_groups[::order], input_resolution)
            stripe = [side // groups if groups else size for size, groups, side in zip(*places, strict=True)]
            shift = [0 if n == 1 else side // 2 for n, side in zip(places[1], stripe, strict=True)]
            tokens = shifted_labels(*input_resolution, stripe, shift, device)
            coarse = [
                [n // self.anchor_window_down_factor for n in x] for x in (input_resolution, stripe, shift)
            ]
            anchors = shifted_labels(*coarse[0], *coarse[1:], device)
            given[f"mask_{name}_a2w"], given[f"mask_{name}_w2a"] = (anchors, tokens), (tokens, anchors)
        return given

    def set_window(self, window: tuple[int, int]) -> None:
        side = square(window)  # it shifts by as much down as to the right
        self.window_size, self.shift_size = window, [side // 2] * 2
        stripes = [size for size in self.stripe_size if size]
        groups = [n * self.anchor_window_down_factor for n in self.stripe_groups if n]
        self.pad_size = math.lcm(side, *stripes, *groups)
