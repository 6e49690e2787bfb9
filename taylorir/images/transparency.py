"""Colours under full transparency, which nobody sees and a network does.

A cut-out often holds black or white where it is transparent. A network, or a bicubic kernel, mixes it into
the edge of what is seen: a dark or bright fringe. Shape legend: H height, W width.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

_RADII = (1, 2, 4, 8, 16, 32)
_STRIP_ROWS = 256  # filled at once, in float64: bounds the memory


def bleed_colours(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Continue what is seen into what is fully transparent.

    A pixel of alpha 0 takes the average, weighted with alpha, of the smallest square around it that holds
    something to be seen, up to a radius of 32 pixels; beyond, the average of the picture. All other pixels
    stay as they are. So the result does not depend on the colours under alpha 0.

    Args:
        colours: uint8 ``[H, W, 3]``.
        alpha: uint8 ``[H, W]``.

    Returns:
        uint8 ``[H, W, 3]``; ``colours`` itself where nothing, or everything, is fully transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    reach = _RADII[-1]
    filled = colours.copy()
    filled[hidden] = _average(colours, alpha)
    for start in range(0, len(alpha), _STRIP_ROWS):
        stop = start + _STRIP_ROWS
        if not hidden[start:stop].any():
            continue
        first = max(0, start - reach)
        around = slice(first, stop + reach)
        inside = slice(start - first, stop - first)
        filled[start:stop] = _filled(filled[around], alpha[around])[inside]
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
