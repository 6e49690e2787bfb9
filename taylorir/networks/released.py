"""Official SwinIR weights, as their authors released them or others trained them: recognised and built."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from torch import Tensor

from taylorir.networks.fitting import ArchitectureError, build_with
from taylorir.networks.swinir import UPSAMPLER_FEATURES, SwinIR
from taylorir.networks.variants import ModelConfig

_FIRST = "conv_first.weight"
_UNSUPPORTED = {"absolute_pos_embed": "an absolute position embedding"}
_JPEG_WINDOW = 7


def build_official(weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> SwinIR:
    """The network of official weights, in evaluation mode.

    Raises:
        ValueError: no weights of a SwinIR.
    """
    return build_with(infer_config(weights, source), weights, source).eval()


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network among ``weights``: what lies beside ``conv_first.weight``, without the prefix before it.

    Prefixes are ``module.`` of parallel training, ``net_g.`` of a trainer of several networks, or any other;
    ``_orig_mod.`` of ``torch.compile`` may stand anywhere. Of several networks the averaged one ("ema" in its
    prefix) is taken, else the first.
    """
    weights = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    prefixes = [name.removesuffix(_FIRST) for name in weights if f".{name}".endswith(f".{_FIRST}")]
    prefix = next((prefix for prefix in prefixes if "ema" in prefix), prefixes[0] if prefixes else "")
    return {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}


def infer_config(
    weights: Mapping[str, Tensor], source: str | os.PathLike[str] = "the state dict"
) -> ModelConfig:
    """The configuration that the names and shapes of official weights imply.

    What they cannot tell is ``img_range``: it is 255 for JPEG artefacts, told by the window of 7, else 1.

    Raises:
        ValueError: not the weights of a SwinIR.
    """
    for key, what in _UNSUPPORTED.items():
        if key in weights:
            raise ArchitectureError(f"{source} has {what}, which is not built here")
    try:
        return _infer(weights)
    except KeyError as error:
        raise ArchitectureError(f"{source} holds no SwinIR: it lacks {error.args[0]}") from None
    except (IndexError, ZeroDivisionError, TypeError):
        raise ArchitectureError(f"{source} holds no SwinIR: its tensors have other shapes") from None
    except ValueError as error:  # of the configuration
        raise ArchitectureError(f"{source} holds no SwinIR that is built here: {error}") from None


def _infer(weights: Mapping[str, Tensor]) -> ModelConfig:
    block = "layers.{}.residual_group.blocks.{}.{}"
    depths, heads = [], []
    three = "layers.0.conv.0.weight" in weights
    while f"layers.{len(depths)}.conv{'.0' if three else ''}.weight" in weights:
        stage, depth = len(depths), 0
        while block.format(stage, depth, "norm1.weight") in weights:
            depth += 1
        depths.append(depth)
        heads.append(weights[block.format(stage, 0, "attn.relative_position_bias_table")].shape[1])
    first = weights["conv_first.weight"].shape
    table = weights[block.format(0, 0, "attn.relative_position_bias_table")]
    embed_dim, in_chans = first[0], first[1]
    window = (math.isqrt(table.shape[0]) + 1) // 2
    mask = weights.get(block.format(0, 1, "attn_mask"))
    has_buffers = block.format(0, 0, "attn.relative_position_index") in weights
    upsampler, upscale = _upsampling(weights, in_chans)
    return ModelConfig(
        upscale=upscale,
        embed_dim=embed_dim,
        depths=tuple(depths),
        num_heads=tuple(heads),
        upsampler=upsampler,
        resi_connection="3conv" if three else "1conv",
        in_chans=in_chans,
        window_size=window,
        img_size=math.isqrt(len(mask)) * window if mask is not None else window if has_buffers else 64,
        mlp_ratio=weights[block.format(0, 0, "mlp.fc1.weight")].shape[0] / embed_dim,
        shift=mask is not None or not has_buffers,
        img_range=255.0 if upsampler == "" and window == _JPEG_WINDOW else 1.0,
    )


def _upsampling(weights: Mapping[str, Tensor], in_chans: int) -> tuple[str, int]:
    """How a network enlarges and by what."""
    if "conv_last.weight" not in weights:
        return "pixelshuffledirect", math.isqrt(weights["upsample.0.weight"].shape[0] // in_chans)
    if "conv_before_upsample.0.weight" not in weights:
        return "", 1
    if "conv_up1.weight" in weights:
        return "nearest+conv", 4 if "conv_up2.weight" in weights else 2
    steps = [value for key, value in weights.items() if key.startswith("upsample.") and value.ndim == 4]
    return "pixelshuffle", math.prod(math.isqrt(len(step) // UPSAMPLER_FEATURES) for step in steps)
