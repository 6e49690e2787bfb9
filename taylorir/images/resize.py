"""MATLAB's bicubic: what the field shrinks its images with.

Shape legend: H height, W width, C channels, s scale, n length of the axis that is resized.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import numpy as np
import torch

_WHITE = {torch.uint8: 255, torch.uint16: 65535}
_CHUNK_VALUES = 2_000_000  # whole values that are resized at once in float64: bounds the memory
Array = TypeVar("Array", np.ndarray, torch.Tensor)


def imresize(image: Array, scale: float, *, antialias: bool = True) -> Array:
    """MATLAB's ``imresize(image, scale, 'bicubic')``.

    Cubic kernel with a = -0.5 (Keys, 1981), stretched by 1/scale when shrinking (antialiasing), symmetric
    border; vertical pass first. Whole values are rounded (half up) and clipped to their range after each of
    the two passes, as MATLAB does, and computed in float64: the result is bit-exact. Floating-point input is
    neither rounded nor clipped, keeps its dtype, and is differentiable.

    Args:
        image: numpy ``[H, W]`` or ``[H, W, C]``, or torch ``[..., H, W]`` on any device.
        scale: output size over input size; the output has ``ceil(scale * n)`` pixels.
        antialias: stretch the kernel when shrinking.

    Returns:
        The same kind and dtype as ``image``.

    Raises:
        TypeError: neither a numpy array nor a tensor, or a dtype that is not uint8, uint16, floating point.
        ValueError: a shape that is no image, or a scale that is not positive and finite.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be positive and finite, not {scale}")
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise ValueError(f"image must be [H, W] or [H, W, C], not {list(image.shape)}")
        pixels, axes = torch.from_numpy(np.require(image, requirements="CW")), (0, 1)
    elif isinstance(image, torch.Tensor):
        if image.ndim < 2:
            raise ValueError(f"image must be [..., H, W], not {list(image.shape)}")
        pixels, axes = image, (-2, -1)
    else:
        raise TypeError(f"image must be a numpy array or a torch tensor, not {type(image).__name__}")
    if 0 in pixels.shape:
        raise ValueError(f"image is empty: {list(pixels.shape)}")
    if not (pixels.dtype in _WHITE or pixels.is_floating_point()):
        raise TypeError(f"image must be uint8, uint16 or floating point, not {pixels.dtype}")
    white = _WHITE.get(pixels.dtype)
    for axis, other in (axes, axes[::-1]):
        if white:
            lines = max(1, _CHUNK_VALUES * pixels.shape[other] // pixels.numel())
            shape = list(pixels.shape)
            shape[axis] = _output_size(shape[axis], scale)
            resized = pixels.new_empty(shape)
            for old, new in zip(pixels.split(lines, other), resized.split(lines, other), strict=True):
                new.copy_(
                    _resize_axis(old.double(), axis, scale, antialias).add_(0.5).floor_().clamp_(0, white)
                )
            pixels = resized
        else:
            pixels = _resize_axis(pixels, axis, scale, antialias)
    return pixels.numpy() if isinstance(image, np.ndarray) else pixels


def _resize_axis(pixels: torch.Tensor, axis: int, scale: float, antialias: bool) -> torch.Tensor:
    indices, weights = _taps(pixels.shape[axis], float(scale), antialias)
    trailing = (-axis if axis < 0 else pixels.ndim - axis) - 1
    weights = weights.to(pixels.device, pixels.dtype).reshape(*weights.shape, *[1] * trailing)
    indices = indices.to(pixels.device)
    total: torch.Tensor | float = 0.0
    for index, weight in zip(indices, weights, strict=True):
        total = total + pixels.index_select(axis, index) * weight
    return total


@functools.lru_cache(maxsize=64)
def _taps(n: int, scale: float, antialias: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Source indices and weights, both ``[taps, n_out]``, float64; columns of weights sum to one."""
    n_out = _output_size(n, scale)
    stretch = scale if antialias and scale < 1 else 1.0
    support = 4 / stretch
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centre - support / 2).astype(np.int64) + 1
    indices = first + np.arange(math.ceil(support) + 1)[:, None]  # [taps, n_out]
    weights = _cubic(stretch * (centre - indices))
    weights /= weights.sum(axis=0)
    used = np.any(weights != 0, axis=1)
    indices = mirror(indices[used], n, repeat_edge=True)
    return torch.from_numpy(indices), torch.from_numpy(weights[used])


def _output_size(n: int, scale: float) -> int:
    return math.ceil(round(n * scale, 6))  # 1/3 of 9 is 3, whatever the last bit of 1/3 says


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel with a = -0.5 (Keys, IEEE TASSP 29(6), 1981, equation 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def mirror(indices: np.ndarray, n: int, *, repeat_edge: bool) -> np.ndarray:
    """Fold any integer index into 0..n-1 by reflection, as often as it takes."""
    period = 2 * n if repeat_edge else max(2 * n - 2, 1)
    folded = np.mod(indices, period)
    return np.where(folded < n, folded, period - repeat_edge - folded)
