"""The configuration of a network: one frozen dataclass, checked when made, and its form as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines a network. Wrong values raise ValueError with one line that names the field.

    Attributes:
        upscale: 1, 2, 3, 4 or 8; 1 is restoration at the size of the input.
        embed_dim: channels of a token.
        depths: blocks of each RSTB. () leaves the transformer out: what remains are the convolutions, with
            "pixelshuffledirect" a linear filter, the floor that a comparison of transformers stands on.
        num_heads: heads of each RSTB; one number stands for all.
        upsampler: "pixelshuffle" (classical, M), "pixelshuffledirect" (lightweight, S), "nearest+conv"
            (real-world, by 2 or 4), or "" (by 1: denoising and JPEG artefacts), where the network gives the
            difference from its input.
        resi_connection: convolution before a residual: "1conv", or the bottleneck "3conv" of the large
            real-world network.
        in_chans: channels of the image: 3 (RGB) or 1 (grey).
        window_size: side of a window, in tokens.
        img_size: side of the LR crop that the official code was built for. It only sets the shape of the
            ``attn_mask`` entries of the state dict; the network itself runs on any size.
        patch_size: side of a token, in LR pixels: 1, 2, 4 or 8.
        mlp_ratio: hidden width of the MLP over ``embed_dim``.
        attention: "softmax" or "taylor".
        softmax_backend: "fused" (no N x N weights: on a CPU by kernels of our own where they can be built,
            else by PyTorch's scaled dot-product attention), "sdpa" (always by PyTorch's), "flash" (as
            "fused", without a bias) or "naive" (N x N weights written out, as in the original).
        attention_form: of TaylorShift: "auto" (by the crossover), "direct", "efficient", or "published"
            (efficient with all d^2 products of features written out, as the TaylorShift authors published
            it).
        position: "bias" (a learned table; softmax only), "none", "rope", "lepe" or "rib" (a learned bias of
            low rank, which flash attention and TaylorShift can hold).
        shift: whether every second block shifts its windows by half. The official code decides by itself
            not to shift when ``img_size`` is at most the window; here it is stated.
        border: "reflect" (the image is padded to whole windows, as in the original) or "ragged" (windows at
            the border are as small as the image leaves them, and no pixel is made up). On whole windows both
            are the same.
        scale_output: multiply TaylorShift's output by sqrt(N / d); N is w w, also where
            windows are shifted.
        centre_keys: take from each key the mean of those it is met with, before TaylorShift normalises it
            (:func:`taylorir.attention.centre_keys`); softmax would not see it.
        drop_path_rate: stochastic depth of the last block in training, rising linearly from 0.
        qkv_bias: whether q, k and v have a bias.
        img_range: factor on the input after the mean is subtracted.
        use_checkpoint: recompute each block in the backward pass instead of keeping its activations.
    """

    upscale: int = 2
    embed_dim: int = 60
    depths: tuple[int, ...] = (6, 6, 6, 6)
    num_heads: tuple[int, ...] | int = 6
    upsampler: str = "pixelshuffledirect"
    resi_connection: str = "1conv"
    in_chans: int = 3
    window_size: int = 8
    img_size: int = 64
    patch_size: int = 1
    mlp_ratio: float = 2.0
    attention: str = "softmax"
    softmax_backend: str = "fused"
    attention_form: str = "auto"
    position: str = "bias"
    shift: bool = True
    border: str = "reflect"
    scale_output: bool = False
    centre_keys: bool = False
    drop_path_rate: float = 0.1
    qkv_bias: bool = True
    img_range: float = 1.0
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        heads = self.num_heads
        if not isinstance(self.depths, list | tuple):
            raise ValueError(f"depths must be a list of whole numbers, got {self.depths!r}")
        if not isinstance(heads, int | list | tuple):
            raise ValueError(f"num_heads must be a whole number or a list of them, got {heads!r}")
        object.__setattr__(self, "depths", tuple(self.depths))
        heads = (heads,) * len(self.depths) if isinstance(heads, int) else tuple(heads)
        object.__setattr__(self, "num_heads", heads)
        _check_config(self)

    @property
    def multiple(self) -> int:
        """Sides of the LR image are padded to a multiple of this many pixels."""
        return self.patch_size * (self.window_size if self.border == "reflect" else 1)


_CHOICES = {
    "upscale": (1, 2, 3, 4, 8),
    "patch_size": (1, 2, 4, 8),
    "upsampler": ("pixelshuffle", "pixelshuffledirect", "nearest+conv", ""),
    "resi_connection": ("1conv", "3conv"),
    "in_chans": (3, 1),
    "attention": ("softmax", "taylor"),
    "softmax_backend": ("naive", "fused", "sdpa", "flash"),
    "attention_form": ("auto", "direct", "efficient", "published"),
    "position": ("bias", "none", "rope", "lepe", "rib"),
    "shift": (True, False),
    "border": ("reflect", "ragged"),
    "scale_output": (True, False),
    "centre_keys": (True, False),
    "qkv_bias": (True, False),
    "use_checkpoint": (True, False),
}
_FACTORS = {"nearest+conv": (2, 4), "": (1,)}


def _check_config(config: ModelConfig) -> None:
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if type(value) is not type(choices[0]) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    factors = _FACTORS.get(config.upsampler, (config.upscale,))
    if config.upscale not in factors:
        raise ValueError(
            f"upscale must be {' or '.join(map(str, factors))} with upsampler {config.upsampler!r}, "
            f"got {config.upscale}"
        )
    for name in ("embed_dim", "window_size", "img_size"):
        _check_positive_int(name, getattr(config, name))
    for name in ("depths", "num_heads"):
        for value in getattr(config, name):
            _check_positive_int(name, value)
    if len(config.num_heads) != len(config.depths):
        raise ValueError(
            f"num_heads must be one number, or one for each of the {len(config.depths)} stages of depths, "
            f"got {config.num_heads}"
        )
    for heads in config.num_heads:
        if config.embed_dim % heads:
            raise ValueError(f"num_heads must divide embed_dim = {config.embed_dim}, got {heads}")
    for name, most in (("drop_path_rate", 1.0), ("mlp_ratio", 64.0), ("img_range", 65535.0)):
        value = getattr(config, name)
        lowest = 0 if name == "drop_path_rate" else 1e-3
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= most:
            raise ValueError(f"{name} must be a number in [{lowest}, {most:g}], got {value!r}")
    if config.attention == "taylor" and config.position == "bias":
        raise ValueError(
            "position 'bias' adds to the scores, which TaylorShift's features cannot hold; "
            "with attention 'taylor' it must be 'none', 'rope', 'lepe' or 'rib'"
        )
    if config.attention == "softmax" and config.softmax_backend == "flash" and config.position == "bias":
        raise ValueError(
            "softmax_backend 'flash' takes no bias; position must be 'none', 'rope', 'lepe' or 'rib', "
            "got 'bias'"
        )
    if config.attention == "softmax" and config.centre_keys:
        raise ValueError("centre_keys must be False with attention 'softmax', which would not see it")


def _check_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}")


def config_to_json(config: ModelConfig) -> str:
    """The configuration as a JSON object with sorted keys."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)


def config_from_json(text: str) -> ModelConfig:
    """The inverse of :func:`config_to_json`.

    Raises:
        ValueError: not a JSON object, an unknown field, or a value that :class:`ModelConfig` refuses.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a model configuration must be a JSON object, got {type(values).__name__}")
    check_fields(values)
    return ModelConfig(**values)


def check_fields(values: dict[str, object]) -> None:
    """Raises: ValueError: a name that is no field of :class:`ModelConfig`; the line lists those that are."""
    allowed = [field.name for field in dataclasses.fields(ModelConfig)]
    unknown = [name for name in values if name not in allowed]
    if unknown:
        raise ValueError(f"unknown model setting {unknown[0]!r}; allowed: {', '.join(allowed)}")
