"""Adapters of torch, torchvision, timm and transformers: global attention, and their windows.

What these libraries can do and TaylorShift cannot is refused: weights to give out, masks that are not of
separate regions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from taylorir.convert.adapted import Adapted, Adapter
from taylorir.convert.operator import TaylorAttention, join_heads, split_heads, split_qkv
from taylorir.convert.regions import shifted_labels
from taylorir.convert.windows import SwinWindows, attend_in_windows, square


def refuse(what: bool, reason: str) -> None:
    """Raise a ValueError that says why a converted attention cannot do what it is asked for."""
    if what:
        raise ValueError(reason)


NO_WEIGHTS = "output_attentions must be False: TaylorShift forms no weights to give out"
NO_CAUSE = "TaylorShift cannot mask what comes later: no regions say it"


# --- torch ----------------------------------------------------------------------------------------------


class TorchMultihead(TaylorAttention):
    """``nn.MultiheadAttention``, as IPT, SwinIR's peers and torchvision's ViT use it. It gives no weights."""

    kind = "global"

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        refuse(is_causal, NO_CAUSE)
        refuse(key_padding_mask is not None, "key_padding_mask must be None: TaylorShift takes regions")
        refuse(self.bias_k is not None or self.add_zero_attn, "bias_k and add_zero_attn are not supported")
        refuse(query.ndim != 3, f"query must be of a batch, with 3 axes, got {list(query.shape)}")
        together = self.in_proj_weight is not None
        apart = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = self.in_proj_weight.chunk(3) if together else apart
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        tokens = (x if self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            split_heads(functional.linear(*of), self.num_heads)
            for of in zip(tokens, weights, biases, strict=True)
        )
        if attn_mask is not None:
            refuse(attn_mask.ndim != 2, f"attn_mask must be one for all, got {list(attn_mask.shape)}")
            attn_mask = (~attn_mask if attn_mask.dtype == torch.bool else attn_mask)[None]
        y = self.out_proj(join_heads(self.attend(q, k, v, attn_mask)))
        return y if self.batch_first else y.transpose(0, 1), None


class TorchEncoderLayer(Adapted):
    """``nn.TransformerEncoderLayer``, whose fast path would not call the attention in it."""

    activation_relu_or_gelu = property(lambda self: 0)


# --- torchvision ----------------------------------------------------------------------------------------


class TorchvisionWindows(TaylorAttention):
    """``ShiftedWindowAttention``, all in one: [B, H, W, C] in."""

    DROPPED = ("relative_position_bias_table", "relative_position_index")

    def forward(self, x: Tensor) -> Tensor:
        window = tuple(self.window_size)
        padded = (side + -side % size for side, size in zip(x.shape[1:3], window, strict=True))
        sizes = zip(self.shift_size, window, padded, strict=True)
        shift = tuple(0 if size >= side else by for by, size, side in sizes)
        y = attend_in_windows(self, x, self.project, self.proj, window, shift)
        return functional.dropout(y, self.dropout, self.training)

    def project(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = list(window)
        self.shift_size = [side // 2 if any(self.shift_size) else 0 for side in window]


class TorchvisionWindowsV2(TorchvisionWindows):
    """``ShiftedWindowAttentionV2``, of cosines already, whose keys have no bias."""

    DROPPED = ("logit_scale", "cpb_mlp", "relative_coords_table", "relative_position_index")

    def project(self, x: Tensor) -> Tensor:
        if self.qkv.bias is None:
            return self.qkv(x)
        q, k, v = self.qkv.bias.chunk(3)
        return functional.linear(x, self.qkv.weight, torch.cat((q, torch.zeros_like(k), v)))


# --- timm -----------------------------------------------------------------------------------------------


class TimmAttention(TaylorAttention):
    """timm's ``Attention``, of its ViT and others."""

    kind = "global"

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        refuse(is_causal, NO_CAUSE)
        refuse(attn_mask is not None, "attn_mask must be None: TaylorShift takes regions")
        q, k, v = split_qkv(self.qkv(x), self.num_heads)
        y = self.norm(join_heads(self.attend(self.q_norm(q), self.k_norm(k), v)))
        y = y if self.gate is None else y * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(y))


class TimmWindows(SwinWindows):
    """timm's ``WindowAttention`` of Swin."""

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        self.window_size = tuple(window_size)
        self.window_area = window_size[0] * window_size[1]

    set_window = set_window_size


class TimmBlock(Adapted):
    """timm's ``SwinTransformerBlock``, which pads after it has shifted."""

    DROPPED = ("attn_mask",)
    attn_mask = property(lambda self: self.get_attn_mask())

    def get_attn_mask(self, x: Tensor | None = None, **like: object) -> Tensor | None:
        if not any(self.shift_size):
            return None
        size = self.input_resolution if x is None else x.shape[1:3]
        padded = (side + -side % step for side, step in zip(size, self.window_size, strict=True))
        return shifted_labels(*padded, self.window_size, self.shift_size)

    def _init_buffers(self) -> None:
        """There are none."""

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size, self.window_area = window, window[0] * window[1]
        self.shift_size = tuple(side // 2 if any(self.shift_size) else 0 for side in window)


# --- transformers ---------------------------------------------------------------------------------------


class HuggingfaceAttention(TaylorAttention):
    """``ViTAttention``: one projection each; weights are asked for by an argument or the configuration."""

    kind = "global"

    def count_heads(self) -> int:
        return self.num_attention_heads

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: object
    ) -> tuple[Tensor, None]:
        refuse(bool(kwargs.get("output_attentions") or self.config.output_attentions), NO_WEIGHTS)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (split_heads(project(hidden_states), self.num_attention_heads) for project in projections)
        return self.o_proj(join_heads(self.attend(q, k, v, attention_mask))), None


class HuggingfaceWindows(HuggingfaceAttention):
    """``SwinAttention``."""

    kind = "window"
    DROPPED = ("relative_position_bias",)


class HuggingfaceCosines(TaylorAttention):
    """``Swin2SRSelfAttention`` and ``Swinv2SelfAttention``: its scale is what the temperature is here."""

    DROPPED = (
        "logit_scale",
        "continuous_position_bias_mlp",
        "relative_coords_table",
        "relative_position_index",
    )

    def count_heads(self) -> int:
        return self.num_attention_heads

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor]:
        refuse(bool(output_attentions), NO_WEIGHTS)
        projections = (self.query, self.key, self.value)
        q, k, v = (split_heads(project(hidden_states), self.num_attention_heads) for project in projections)
        return (join_heads(self.attend(q, k, v, attention_mask)),)


class HuggingfacePadding(Adapter):
    """``Swin2SRModel``, which pads images to multiples of the window of its configuration."""

    def set_window(self, window: tuple[int, int]) -> None:
        self.config.window_size = square(window)


class HuggingfaceLayer(Adapted):
    """``SwinLayer``, ``Swin2SRLayer`` and ``Swinv2Layer``, which shift."""

    def get_attn_mask(
        self, height: int, width: int, dtype: object = None, device: torch.device | None = None
    ) -> Tensor | None:
        if self.shift_size <= 0:
            return None
        return shifted_labels(height, width, (self.window_size,) * 2, (self.shift_size,) * 2, device)

    def set_window(self, window: tuple[int, int]) -> None:
        self.window_size = square(window)
        self.shift_size = self.window_size // 2 if self.shift_size else 0
