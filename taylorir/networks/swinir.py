"""SwinIR (arXiv 2108.10257) for all of its tasks: SwinTransformerBlock -> RSTB -> SwinIR.

What a block attends with is in :mod:`taylorir.networks.window_attention`.

Parameters have the names of the authors' code, so that their released weights load. Inside, tokens stay in
the image layout [B, H, W, C], which a convolution reads as channels-last without a copy.

Shape legend
    B     images of a batch
    H, W  height and width of the token grid: LR pixels over ``patch_size``, padded as ``config.border`` says
    C     channels (``embed_dim``)
    w     window size
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from taylorir.attention import token_layers
from taylorir.networks.config import ModelConfig
from taylorir.networks.placement import PART_TOKENS, may_go_in_parts
from taylorir.networks.window_attention import OFFICIAL_BUFFER_TOKENS, WindowAttention
from taylorir.networks.windows import official_mask, pad_reflect

logger = logging.getLogger(__name__)

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, subtracted from the input; of a grey image nothing is."""

UPSAMPLER_FEATURES = 64
RESIDUAL_SLOPE = 0.2  # of the leaky ReLUs in "3conv" and "nearest+conv"

OFFICIAL_BUFFERS = ("relative_position_index", "attn_mask")


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))

    def after(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """x + mlp(norm(x)), in one pass."""
        return token_layers(x, self.fc1, self.fc2, norm=norm, residual=x)


class SwinTransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (:eq:`eq-block`).

    Args:
        attention: the attention of this block, [B, H, W, C] to [B, H, W, C].
        drop_path: chance that an image skips a branch in training.
    """

    def __init__(self, config: ModelConfig, attention: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = Mlp(config.embed_dim, int(config.embed_dim * config.mlp_ratio))
        self.drop_path = drop_path
        self.img_size = config.img_size // config.patch_size

    def forward(self, x: Tensor) -> Tensor:
        whole = self.training or not may_go_in_parts(x) or self._is_watched()
        if not whole and isinstance(self.attn, WindowAttention) and self.attn.has_parts():
            return self._in_parts(x)
        x = x + self._drop(self.attn(self.norm1(x)))
        if whole:
            return x + self._drop(self.mlp(self.norm2(x)))
        x = x.contiguous()
        for tokens in x.flatten(0, 2).split(PART_TOKENS):
            tokens.copy_(self.mlp.after(self.norm2, tokens))
        return x

    def _in_parts(self, x: Tensor) -> Tensor:
        """:meth:`forward`, a few windows at a time from their norm to their MLP."""
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        for attend, (given, wanted) in self.attn.parts(x, y):
            tokens = given.reshape(len(x), -1, x.shape[-1])
            tokens = attend(tokens, norm=self.norm1, residual=tokens)
            wanted.copy_(self.mlp.after(self.norm2, tokens).view(wanted.shape))
        return y

    def _is_watched(self) -> bool:
        """Whether a hook waits for what a part of the block computes, and expects all tokens."""
        parts = (self.norm1, self.attn, self.norm2, *self.mlp.modules())
        return any(module._forward_hooks or module._forward_pre_hooks for module in parts)

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) < keep
        return branch * kept.to(branch.dtype) / keep if keep > 0 else branch * 0

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        attention = self.attn
        if (
            type(attention) is WindowAttention
            and attention.position == "bias"
            and attention.shift_size
            and attention.window_size**2 <= OFFICIAL_BUFFER_TOKENS
            and self.img_size % attention.window_size == 0
        ):
            destination[prefix + "attn_mask"] = official_mask(
                self.img_size, attention.window_size, attention.shift_size
            )
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        state_dict.pop(prefix + "attn_mask", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class PatchEmbed(nn.Module):
    """Feature image [B, C, H p, W p] to tokens [B, H, W, C] (:eq:`eq-patch`).

    At p = 1, SwinIR's own patch size, a token is a pixel and there is nothing to project: only a norm.
    At p > 1 a strided convolution projects p x p pixels to one token.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        p, channels = config.patch_size, config.embed_dim
        self.proj = nn.Conv2d(channels, channels, p, stride=p) if p > 1 else None
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.proj is not None:
            x = self.proj(x)
        return self.norm(x.permute(0, 2, 3, 1))


class PatchUnembed(nn.Module):
    """Tokens [B, H, W, C] back to a feature image [B, C, H p, W p]: a linear layer and a pixel shuffle."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_size, channels = config.patch_size, config.embed_dim
        self.proj = nn.Linear(channels, channels * self.patch_size**2) if self.patch_size > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.proj is None:
            return x.permute(0, 3, 1, 2)
        return functional.pixel_shuffle(self.proj(x).permute(0, 3, 1, 2), self.patch_size)


class ResidualGroup(nn.Module):
    """The Swin blocks of an RSTB, one after the other; every second one shifts its windows."""

    def __init__(self, blocks: list[SwinTransformerBlock], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_checkpoint else block(x)
        return x


class RSTB(nn.Module):
    """Residual Swin transformer block: blocks, a 3 x 3 convolution, and the residual (:eq:`eq-rstb`).

    Where ``config.resi_connection`` is "3conv" a bottleneck takes the place of the convolution.
    """

    def __init__(self, config: ModelConfig, blocks: list[SwinTransformerBlock]) -> None:
        super().__init__()
        self.residual_group = ResidualGroup(blocks, config.use_checkpoint)
        self.conv = _residual_conv(config)

    def forward(self, x: Tensor) -> Tensor:
        features = self.residual_group(x).permute(0, 3, 1, 2)
        return x + self.conv(features).permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """The network: LR image [B, c, H, W] in 0..1 to SR image [B, c, sH, sW], not clipped.

    c is ``config.in_chans``. Where s is 1 the LR image is the degraded one, of the size of the result.

    Args:
        config: what to build; kept as ``model.config``. ``config.attention`` must be that of the class.
    """

    attention = "softmax"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.attention != self.attention:
            raise ValueError(
                f"{type(self).__name__} has attention {self.attention!r}, the config {config.attention!r}"
            )
        self.config = config
        channels = config.embed_dim
        mean = torch.tensor(RGB_MEAN if config.in_chans == 3 else (0.0,))
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(config.in_chans, channels, 3, padding=1)
        if config.depths:
            self.patch_embed = PatchEmbed(config)
            self.patch_unembed = PatchUnembed(config)
        total = sum(config.depths)
        rates = [config.drop_path_rate * index / max(total - 1, 1) for index in range(total)]
        self.layers = nn.ModuleList()
        for depth, heads in zip(config.depths, config.num_heads, strict=True):
            blocks = []
            for index in range(depth):
                shift = config.window_size // 2 if config.shift and index % 2 else 0
                attention = self.make_attention(config, heads, shift)
                blocks.append(SwinTransformerBlock(config, attention, rates.pop(0)))
            self.layers.append(RSTB(config, blocks))
        if config.depths:
            self.norm = nn.LayerNorm(channels)
        self.conv_after_body = _residual_conv(config)
        self._make_upsampler(config)
        self.apply(_initialise)

    @staticmethod
    def make_attention(config: ModelConfig, num_heads: int, shift_size: int) -> WindowAttention:
        """The attention of one block: what a variant of the network replaces."""
        return WindowAttention(config, num_heads, shift_size)

    def _make_upsampler(self, config: ModelConfig) -> None:
        channels, features = config.embed_dim, UPSAMPLER_FEATURES
        if config.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(*_shuffle_step(channels, config.in_chans, config.upscale))
            return
        if config.upsampler == "":
            self.conv_last = nn.Conv2d(channels, config.in_chans, 3, padding=1)
            return
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.LeakyReLU())
        if config.upsampler == "nearest+conv":
            self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
            self.conv_up2 = nn.Conv2d(features, features, 3, padding=1) if config.upscale == 4 else None
            self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        else:
            factors = {1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[config.upscale]
            steps = [module for factor in factors for module in _shuffle_step(features, features, factor)]
            self.upsample = nn.Sequential(*steps)
        self.conv_last = nn.Conv2d(features, config.in_chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """LR [B, c, H, W] in 0..1, any H and W from 1, to SR [B, c, sH, sW].

        Raises:
            ValueError: not [B, c, H, W] with at least one pixel.
        """
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_chans or 0 in x.shape:
            raise ValueError(
                f"the input must be [B, {config.in_chans}, H, W] with at least one pixel, got {list(x.shape)}"
            )
        height, width = x.shape[-2:]
        x = pad_reflect(x, config.multiple)
        x = (x - self.mean.to(x.dtype)) * config.img_range
        # Channels last, as tokens will be; always a copy, as asking for one depends on the size when traced.
        x = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)
        features = self.conv_first(x)
        if config.upsampler:
            del x  # nothing is added to it: the blocks run without holding it
        features = self.conv_after_body(self.deep_features(features)) + features
        x = self._reconstruct(features) if config.upsampler else x + self.conv_last(features)
        x = x[..., : height * config.upscale, : width * config.upscale]
        return x / config.img_range + self.mean.to(x.dtype)

    def _reconstruct(self, x: Tensor) -> Tensor:
        """Features [B, C, Hp, Wp] to an image [B, c, s Hp, s Wp]."""
        if self.config.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.config.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for conv in (self.conv_up1, self.conv_up2):
            if conv is not None:
                doubled = functional.interpolate(x, scale_factor=2.0, mode="nearest")
                x = functional.leaky_relu(conv(doubled), RESIDUAL_SLOPE)
        return self.conv_last(functional.leaky_relu(self.conv_hr(x), RESIDUAL_SLOPE))

    def deep_features(self, x: Tensor) -> Tensor:
        """The transformer: feature image [B, C, Hp, Wp] to one of that shape; without stages, to itself."""
        if not self.config.depths:
            return x
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.patch_unembed(self.norm(x))

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """Load weights, the authors' files as well: a ``params_ema`` or ``params`` level is entered.

        Buffers of the original (``relative_position_index``, ``attn_mask``) are not needed and skipped;
        those of another window are named in the log.
        """
        for level in ("params_ema", "params"):
            if level in state_dict:
                state_dict = state_dict[level]
        own = {key: value.shape for key, value in self.state_dict().items()}
        other = [
            key
            for key, value in state_dict.items()
            if key.endswith(OFFICIAL_BUFFERS) and own.get(key) != value.shape
        ]
        if other:
            logger.warning("ignored %d buffers of another window, the first being %s", len(other), other[0])
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def learned_state_dict(self) -> dict[str, Tensor]:
        """The parameters alone: all that a checkpoint needs, without the buffers of the authors' files."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}


def _residual_conv(config: ModelConfig) -> nn.Module:
    """The convolution before a residual: one of 3 x 3, or a bottleneck of a quarter of the channels."""
    channels = config.embed_dim
    if config.resi_connection == "1conv":
        return nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(channels, channels // 4, 3, padding=1),
        nn.LeakyReLU(RESIDUAL_SLOPE),
        nn.Conv2d(channels // 4, channels // 4, 1),
        nn.LeakyReLU(RESIDUAL_SLOPE),
        nn.Conv2d(channels // 4, channels, 3, padding=1),
    )


def _shuffle_step(channels: int, out_channels: int, factor: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels * factor**2, 3, padding=1), nn.PixelShuffle(factor)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
