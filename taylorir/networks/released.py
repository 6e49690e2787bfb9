"""The SwinIR files (``.pth``) that its authors released: read without running code from them, and built."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from taylorir.networks.swinir import SwinIR
from taylorir.networks.variants import ModelConfig, build_from_config
from taylorir.rows import one_line

_UNSUPPORTED = {
    "conv_up1.weight": "the upsampler 'nearest+conv' of real-world SR",
    "layers.0.conv.0.weight": "the residual connection '3conv' of the large model",
    "absolute_pos_embed": "an absolute position embedding",
}


def load_released(path: str | os.PathLike) -> SwinIR:
    """The network of a released file, its configuration read off the shapes, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no weights of a SwinIR for classical or lightweight super-resolution.
    """
    weights = read_released(path)
    model = build_from_config(infer_config(weights, path))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit SwinIR: {one_line(error)[:200]}") from None
    return model.eval()


def read_released(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` file; a ``params_ema`` or ``params`` level is entered.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no state dict, or anything but tensors.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise ValueError(f"{path} is no weights file that can be read without running code from it") from None
    for level in ("params_ema", "params"):
        if isinstance(weights, Mapping) and level in weights:
            weights = weights[level]
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no state dict of tensors")
    return dict(weights)


def infer_config(weights: Mapping[str, Tensor], source: str | os.PathLike = "the state dict") -> ModelConfig:
    """The configuration that the names and shapes of official weights imply.

    Raises:
        ValueError: not the weights of a SwinIR for classical or lightweight super-resolution.
    """
    for key, what in _UNSUPPORTED.items():
        if key in weights:
            raise ValueError(f"{source} has {what}, which is not built here")
    try:
        return _infer(weights)
    except KeyError as error:
        raise ValueError(f"{source} holds no SwinIR: it lacks {error.args[0]}") from None


def _infer(weights: Mapping[str, Tensor]) -> ModelConfig:
    block = "layers.{}.residual_group.blocks.{}.{}"
    depths, heads = [], []
    while f"layers.{len(depths)}.conv.weight" in weights:
        stage, depth = len(depths), 0
        while block.format(stage, depth, "norm1.weight") in weights:
            depth += 1
        depths.append(depth)
        heads.append(weights[block.format(stage, 0, "attn.relative_position_bias_table")].shape[1])
    embed_dim = weights["conv_first.weight"].shape[0]
    table = weights[block.format(0, 0, "attn.relative_position_bias_table")]
    window = (math.isqrt(table.shape[0]) + 1) // 2
    mask = weights.get(block.format(0, 1, "attn_mask"))
    has_buffers = block.format(0, 0, "attn.relative_position_index") in weights
    direct = "conv_last.weight" not in weights
    if direct:
        upscale = math.isqrt(weights["upsample.0.weight"].shape[0] // 3)
    else:
        steps = [value for key, value in weights.items() if key.startswith("upsample.") and value.ndim == 4]
        upscale = math.prod(math.isqrt(len(step) // 64) for step in steps)
    return ModelConfig(
        upscale=upscale,
        embed_dim=embed_dim,
        depths=tuple(depths),
        num_heads=tuple(heads),
        upsampler="pixelshuffledirect" if direct else "pixelshuffle",
        window_size=window,
        img_size=math.isqrt(len(mask)) * window if mask is not None else window if has_buffers else 64,
        mlp_ratio=weights[block.format(0, 0, "mlp.fc1.weight")].shape[0] / embed_dim,
        shift=mask is not None or not has_buffers,
    )
