"""NIQE: how far the statistics of an image are from those of natural photographs, without a reference.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing
Letters 20(3), 2013. The model of natural photographs is the one that the authors released.

Shape legend: B blocks, b side of a block in pixels, S scales.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from taylorir.images.pixels import rgb_to_y
from taylorir.images.resize import imresize

#: Side of a block at the first of two scales, in pixels; the second has half of it.
BLOCK = 96
_PRISTINE = Path(__file__).with_name("niqe_pristine.csv")
_WINDOW = {"sigma": 7 / 6, "radius": 3, "mode": "nearest"}
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(200, 10_001) / 1000
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def niqe(image: np.ndarray) -> float:
    """Distance of an image's statistics from those of natural photographs; lower is more natural.

    The luma, rounded, is divided by its local contrast at two scales and cut into blocks. A block has 18
    numbers a scale: shape and width of the distribution of its values, and of the products of neighbours in
    four directions. The score is the distance between the Gaussian of these numbers and that of the
    photographs (equation 10). What does not fill a block at the right and below does not count. Whether the
    image shows what was before the camera, it cannot know.

    Args:
        image: uint8 ``[H, W, 3]``; two blocks or more, thus for instance 96 x 192 pixels.

    Raises:
        ValueError: fewer than two blocks, or fewer than two that are not of one grey level.
    """
    luma = np.rint(rgb_to_y(image))
    rows, columns = (side // BLOCK for side in luma.shape)
    if rows * columns < 2:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ValueError(f"NIQE needs two blocks of {BLOCK}x{BLOCK} pixels, and the image has {size}")
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    features = np.concatenate([_features(luma, BLOCK), _features(imresize(luma, 0.5), BLOCK // 2)], axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise ValueError(f"NIQE needs two blocks that are not of one grey level, and has {len(whole)}")
    mean, covariance = _pristine()
    apart = mean - np.nanmean(features, axis=0)
    pooled = (covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(pooled) @ apart))


def _features(luma: np.ndarray, side: int) -> np.ndarray:
    """The 18 numbers of each block: ``[B, 18]``, NaN for a block of one grey level."""
    local = gaussian_filter(luma, **_WINDOW)
    contrast = np.sqrt(np.abs(gaussian_filter(luma**2, **_WINDOW) - local**2))
    values = (luma - local) / (contrast + 1)
    rows, columns = (length // side for length in luma.shape)
    blocks = values.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)  # [B, b, b]
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # equation 8
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _fit(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussian of each block by moments: shape, left and right width, ``[B]`` each."""
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt((values**2).sum(1, where=side) / side.sum(1)) for side in (values < 0, values > 0)
        )
        skew = left / right
        ratio = np.abs(values).mean(1) ** 2 / (values**2).mean(1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[np.abs(_RATIOS - ratio[:, None]).argmin(1)]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


@functools.cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    """Mean ``[36]`` and covariance ``[36, 36]`` of the blocks of natural photographs."""
    mean, *covariance = np.loadtxt(_PRISTINE, delimiter=",")
    return mean, np.stack(covariance)
