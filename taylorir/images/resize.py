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


def imresize(
    image: Array,
    scale: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    antialias: bool = True,
) -> Array:
    """MATLAB's ``imresize(image, scale, 'bicubic')``, or ``imresize(image, size, 'bicubic')``.

    Cubic kernel with a = -0.5 (Keys, 1981), stretched by 1/scale when shrinking (antialiasing), symmetric
    border; the pass with the smaller scale first, the vertical one where both are equal. Whole values are
    rounded (half up) and clipped to their range after each of the two passes, as MATLAB does, and computed in
    float64 in its order of operations, so that values half-way between two fall to the same side.
    Floating-point input is neither rounded nor clipped, keeps its dtype, and is differentiable.

    Args:
        image: numpy ``[H, W]`` or ``[H, W, C]``, or torch ``[..., H, W]`` on any device.
        scale: output size over input size; the output has ``ceil(scale * n)`` pixels.
        size: height and width of the output, instead of ``scale``.
        antialias: stretch the kernel when shrinking.

    Returns:
        The same kind and dtype as ``image``.

    Raises:
        TypeError: neither a numpy array nor a tensor, or a dtype that is not uint8, uint16, floating point.
        ValueError: a shape that is no image, a scale that is not positive and finite, a size that is not
            positive, or both or neither of them.
    """
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
    white = _WHITE.get(pixels.dtype)
    if white is None and not pixels.is_floating_point():
        raise TypeError(f"image must be uint8, uint16 or floating point, not {pixels.dtype}")
    passes = zip(*_sizes_and_scales([pixels.shape[axis] for axis in axes], scale, size), axes, strict=True)
    for n_out, stretch, axis in sorted(passes, key=lambda one: one[1]):
        taps = _taps(pixels.shape[axis], n_out, stretch, antialias)
        if white is None:
            pixels = _resize_axis(pixels, axis, *taps)
            continue
        other = sum(axes) - axis
        shape = list(pixels.shape)
        shape[axis] = n_out
        resized = pixels.new_empty(shape)
        lines = max(1, _CHUNK_VALUES * pixels.shape[other] // max(pixels.numel(), resized.numel()))
        for old, new in zip(pixels.split(lines, other), resized.split(lines, other), strict=True):
            new.copy_(_resize_axis(old.double(), axis, *taps).add_(0.5).floor_().clamp_(0, white))
        pixels = resized
    return pixels.numpy() if isinstance(image, np.ndarray) else pixels


def _sizes_and_scales(
    old: list[int], scale: float | None, size: tuple[int, int] | None
) -> tuple[list[int], list[float]]:
    if (scale is None) == (size is None):
        raise ValueError("give either a scale or a size")
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size must be a positive height and width, not {size}")
        return list(size), [new / n for new, n in zip(size, old, strict=True)]
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be positive and finite, not {scale}")
    return [math.ceil(scale * n) for n in old], [float(scale)] * 2


def _resize_axis(
    pixels: torch.Tensor, axis: int, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    trailing = (-axis if axis < 0 else pixels.ndim - axis) - 1
    weights = weights.to(pixels.device, pixels.dtype).reshape(*weights.shape, *[1] * trailing)
    indices = indices.to(pixels.device)
    total: torch.Tensor | float = 0.0
    for index, weight in zip(indices, weights, strict=True):
        total = total + pixels.index_select(axis, index) * weight
    return total


@functools.lru_cache(maxsize=64)
def _taps(n: int, n_out: int, scale: float, antialias: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Source indices and weights, both ``[taps, n_out]``, float64; columns of weights sum to one.

    Positions count from 1, as MATLAB's do: that decides the last bit of a weight.
    """
    stretch = scale if antialias and scale < 1 else 1.0
    width = 4 / stretch
    centre = np.arange(1, n_out + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - width / 2)
    positions = first + np.arange(math.ceil(width) + 2)[:, None]  # [taps, n_out]
    weights = stretch * _cubic(stretch * (centre - positions))
    weights /= weights.sum(axis=0)
    used = np.any(weights != 0, axis=1)
    indices = mirror(positions[used].astype(np.int64) - 1, n, repeat_edge=True)
    return torch.from_numpy(indices), torch.from_numpy(weights[used])


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel with a = -0.5 (Keys, IEEE TASSP 29(6), 1981, equation 15)."""
    x = np.abs(x)
    square = x * x
    cube = square * x
    near = 1.5 * cube - 2.5 * square + 1
    far = -0.5 * cube + 2.5 * square - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def mirror(indices: np.ndarray, n: int, *, repeat_edge: bool) -> np.ndarray:
    """Fold any integer index into 0..n-1 by reflection, as often as it takes."""
    period = 2 * n if repeat_edge else max(2 * n - 2, 1)
    folded = np.mod(indices, period)
    return np.where(folded < n, folded, period - repeat_edge - folded)
