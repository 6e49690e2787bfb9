"""The networks by name: every variant is a literal in ``VARIANTS``, and ``build_model`` makes one."""

from __future__ import annotations

import dataclasses
import difflib

from taylorir.networks.config import ModelConfig, check_fields, config_from_json, config_to_json
from taylorir.networks.swinir import SwinIR
from taylorir.networks.taylorswinir import TaylorSwinIR

__all__ = [
    "VARIANTS",
    "ModelConfig",
    "build_from_config",
    "build_model",
    "config_from_json",
    "config_to_json",
]

_SMALL = ModelConfig(
    embed_dim=60, depths=(6, 6, 6, 6), num_heads=6, upsampler="pixelshuffledirect", img_size=64, window_size=8
)
_MEDIUM = ModelConfig(
    embed_dim=180, depths=(6,) * 6, num_heads=6, upsampler="pixelshuffle", img_size=48, window_size=8
)
_TINY = ModelConfig(
    embed_dim=24, depths=(2, 2), num_heads=3, upsampler="pixelshuffledirect", img_size=48, window_size=8
)
_RESTORE = dataclasses.replace(_MEDIUM, upscale=1, upsampler="", img_size=128)
_JPEG = dataclasses.replace(_RESTORE, img_size=126, window_size=7, img_range=255.0)
_REAL = dataclasses.replace(_MEDIUM, upsampler="nearest+conv", img_size=64)
_REAL_LARGE = dataclasses.replace(
    _REAL, embed_dim=240, depths=(6,) * 9, num_heads=(8,) * 9, resi_connection="3conv"
)
_TAYLOR = {"attention": "taylor", "position": "none", "window_size": 48}
_TAYLOR_JPEG = {**_TAYLOR, "window_size": 49}


def _variant(base: ModelConfig, upscale: int, **changes: object) -> ModelConfig:
    return dataclasses.replace(base, upscale=upscale, **changes)


#: Name of a network -> its configuration.
VARIANTS: dict[str, ModelConfig] = {
    # classical SwinIR ("M") and lightweight SwinIR ("S") as their authors define them
    "swinir_s_x2": _variant(_SMALL, 2),
    "swinir_s_x3": _variant(_SMALL, 3),
    "swinir_s_x4": _variant(_SMALL, 4),
    "swinir_m_x2": _variant(_MEDIUM, 2),
    "swinir_m_x3": _variant(_MEDIUM, 3),
    "swinir_m_x4": _variant(_MEDIUM, 4),
    "swinir_m_x8": _variant(_MEDIUM, 8),
    # the paper's: TaylorShift within 48 x 48 windows, no position bias
    "taylorswinir_s_x2": _variant(_SMALL, 2, **_TAYLOR),
    "taylorswinir_s_x3": _variant(_SMALL, 3, **_TAYLOR),
    "taylorswinir_s_x4": _variant(_SMALL, 4, **_TAYLOR),
    "taylorswinir_m_x2": _variant(_MEDIUM, 2, **_TAYLOR),
    "taylorswinir_m_x3": _variant(_MEDIUM, 3, **_TAYLOR),
    "taylorswinir_m_x4": _variant(_MEDIUM, 4, **_TAYLOR),
    "taylorswinir_m_x8": _variant(_MEDIUM, 8, **_TAYLOR),
    # SwinIR's other tasks: real-world SR, denoising, JPEG artefacts
    "swinir_real_m_x2": _variant(_REAL, 2),
    "swinir_real_m_x4": _variant(_REAL, 4),
    "swinir_real_l_x4": _variant(_REAL_LARGE, 4),
    "swinir_denoise_gray": _variant(_RESTORE, 1, in_chans=1),
    "swinir_denoise_color": _variant(_RESTORE, 1),
    "swinir_jpeg_gray": _variant(_JPEG, 1, in_chans=1),
    "swinir_jpeg_color": _variant(_JPEG, 1),
    "taylorswinir_real_m_x2": _variant(_REAL, 2, **_TAYLOR),
    "taylorswinir_real_m_x4": _variant(_REAL, 4, **_TAYLOR),
    "taylorswinir_real_l_x4": _variant(_REAL_LARGE, 4, **_TAYLOR),
    "taylorswinir_denoise_gray": _variant(_RESTORE, 1, in_chans=1, **_TAYLOR),
    "taylorswinir_denoise_color": _variant(_RESTORE, 1, **_TAYLOR),
    # a window of 7, which JPEG's blocks of 8 do not line up with, becomes one of 49
    "taylorswinir_jpeg_gray": _variant(_JPEG, 1, in_chans=1, **_TAYLOR_JPEG),
    "taylorswinir_jpeg_color": _variant(_JPEG, 1, **_TAYLOR_JPEG),
    # small enough to train in two minutes on two cores
    "swinir_tiny_x2": _variant(_TINY, 2),
    "taylorswinir_tiny_x2": _variant(_TINY, 2, attention="taylor", position="none", window_size=16),
}

_DEFAULT_POSITION = {"softmax": "bias", "taylor": "none"}


def build_model(name: str, **overrides: object) -> SwinIR:
    """A network with fresh weights; ``model.config`` says all about it.

    Args:
        name: a key of ``VARIANTS``.
        overrides: fields of :class:`ModelConfig` to change. Changing ``attention`` alone sets ``position``
            to the default of that attention: "bias" for softmax, "none" for Taylor.

    Raises:
        ValueError: an unknown name or setting, or a value that :class:`ModelConfig` refuses.
    """
    if name not in VARIANTS:
        close = difflib.get_close_matches(str(name), VARIANTS, n=3, cutoff=0.4) or list(VARIANTS)
        raise ValueError(f"unknown model {name!r}; did you mean {', '.join(close)}?")
    check_fields(overrides)
    config = VARIANTS[name]
    attention = overrides.get("attention", config.attention)
    if attention != config.attention and attention in _DEFAULT_POSITION:
        overrides = {"position": _DEFAULT_POSITION[attention], **overrides}
    if "depths" in overrides and "num_heads" not in overrides and len(set(config.num_heads)) == 1:
        overrides = {"num_heads": config.num_heads[0], **overrides}
    return build_from_config(dataclasses.replace(config, **overrides))


def build_from_config(config: ModelConfig) -> SwinIR:
    """The network that a configuration describes, e.g. that of a checkpoint, with fresh weights."""
    return TaylorSwinIR(config) if config.attention == "taylor" else SwinIR(config)
