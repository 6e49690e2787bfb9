"""Colours under full transparency, which nobody sees and a network does.

A cut-out often holds black or white where it is transparent. A network, or a bicubic kernel, mixes it into
the edge of what is seen: a dark or bright fringe. Shape legend: H height, W width.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.ndimage import uniform_filter

_RADII = (1, 2, 4, 8, 16, 32)
_TILE = 512  # pixels a side that are filled at once, in float64: bounds the memory


def bleed_colours(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Continue what is seen into what is fully transparent.

    A pixel of alpha 0 takes the average, weighted with alpha, of the smallest square around it that holds
    something to be seen, up to a radius of 32 pixels; beyond, the average of the picture. All other pixels
    stay as they are. So the result does not depend on the colours under alpha 0.

    Args:
        colours: uint8 or uint16 ``[H, W, 3]``.
        alpha: uint8 or uint16 ``[H, W]``.

    Returns:
        ``[H, W, 3]``; ``colours`` itself where nothing, or everything, is fully transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    filled = colours.copy()
    filled[hidden] = _average(colours, alpha)
    height, width = alpha.shape
    for top, left in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        tile = slice(top, top + _TILE), slice(left, left + _TILE)
        first = max(0, top - _RADII[-1]), max(0, left - _RADII[-1])
        around = tuple(slice(a, b.stop + _RADII[-1]) for a, b in zip(first, tile, strict=True))
        if hidden[tile].any() and not hidden[around].all():
            within = tuple(slice(b.start - a, b.stop - a) for a, b in zip(first, tile, strict=True))
            filled[tile] = _filled(filled[around], alpha[around])[within]
    return filled


def _average(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    total = np.einsum("hwc,hw->c", colours, alpha, dtype=np.int64)
    return (total / alpha.sum(dtype=np.int64)).round()


def _filled(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    filled, unknown = colours.copy(), alpha == 0
    weights = alpha.astype(np.float64)
    products = colours * weights[..., None]
    for radius in _RADII:
        size = 2 * radius + 1
        weight = uniform_filter(weights, size, mode="constant")
        near = unknown & (weight * size**2 > 0.5)  # the least weight in a square is 1
        for channel in range(3):
            mean = uniform_filter(products[..., channel], size, mode="constant")
            filled[..., channel][near] = np.rint(mean[near] / weight[near])
        unknown &= ~near
        if not unknown.any():
            break
    return filled
