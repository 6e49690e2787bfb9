"""What the protocol does to pixels around a network: luma, crop, tensors, padding.

At the edge an image is a numpy array, uint8, RGB, ``[H, W, 3]``; inside a network it is a float tensor
``[B, 3, H, W]`` in 0..1.

Shape legend: B batch, H height, W width, C channels, n length of the axis that is padded.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from taylorir.images.resize import Array, mirror

LUMA_WEIGHTS = (65.481, 128.553, 24.966)
GREY_WEIGHTS = (0.299, 0.587, 0.114)
#: How an image is extended to a multiple of the window; see :func:`pad_to_multiple`.
PADDING_MODES = ("reflect", "flip")


def rgb_to_y(image: Array) -> Array:
    """Luma of ITU-R BT.601 in studio swing, not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 with R, G, B in 0..255, so Y is in 16..235.

    Args:
        image: numpy ``[..., 3]`` or torch ``[..., 3, H, W]``, values in 0..255 whatever the dtype.

    Returns:
        numpy float64 ``[...]``, or torch ``[..., H, W]`` (float64 for integers, else the dtype of ``image``).

    Raises:
        ValueError: there are no three channels where they belong.
    """
    axis = -3 if isinstance(image, torch.Tensor) else -1
    if image.ndim < -axis or image.shape[axis] != 3:
        raise ValueError(f"image must have 3 channels on axis {axis}, not shape {list(image.shape)}")
    red, green, blue = LUMA_WEIGHTS
    if isinstance(image, torch.Tensor):
        image = image if image.is_floating_point() else image.double()
        r, g, b = image.unbind(axis)
        return 16.0 + (red * r + green * g + blue * b) / 255.0
    return 16.0 + image.astype(np.float64) @ (np.array(LUMA_WEIGHTS) / 255.0)


def to_grey(image: np.ndarray) -> np.ndarray:
    """The grey image that grey networks are made for: luma of BT.601 in full swing, rounded, as OpenCV reads.

    Args:
        image: uint8 ``[H, W, 3]``.

    Returns:
        uint8 ``[H, W, 1]``; of a grey image its own values.
    """
    return np.rint(image.astype(np.float64) @ np.array(GREY_WEIGHTS)).astype(np.uint8)[:, :, None]


def mod_crop(image: np.ndarray, scale: int) -> np.ndarray:
    """Crop bottom and right to a multiple of ``scale``.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        scale: a positive integer.

    Returns:
        A view ``[H - H % scale, W - W % scale(, C)]``.

    Raises:
        ValueError: the image is smaller than ``scale``, or ``scale`` is not positive.
    """
    if scale < 1:
        raise ValueError(f"scale must be a positive integer, not {scale}")
    height, width = image.shape[:2]
    if min(height, width) < scale:
        raise ValueError(f"an image of {width}x{height} pixels cannot be cropped to a multiple of {scale}")
    return image[: height - height % scale, : width - width % scale]


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of an image.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        side: of the square; a smaller image keeps its side.

    Returns:
        A view ``[min(H, side), min(W, side)(, C)]``.
    """
    top, left = (max(n - side, 0) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def to_tensor(image: np.ndarray, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
    """uint8 ``[H, W, C]`` to a float tensor ``[1, C, H, W]`` in 0..1."""
    pixels = torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements="CW"))
    return pixels.to(device)[None].to(dtype) / 255.0


def to_image(tensor: torch.Tensor) -> np.ndarray:
    """Float tensor ``[1, C, H, W]`` or ``[C, H, W]`` to uint8 ``[H, W, C]``: clipped, times 255, rounded.

    Raises:
        ValueError: another shape, or a value that is NaN or infinite.
    """
    pixels = tensor.detach()
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 3:
        raise ValueError(f"tensor must be [1, 3, H, W] or [3, H, W], not {list(tensor.shape)}")
    if not math.isfinite(pixels.sum(dtype=torch.float64)):
        raise ValueError("the image has values that are not finite (NaN or infinity)")
    pixels = pixels.float().clamp(0, 1).mul(255.0).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def pad_to_multiple(image: torch.Tensor, multiple: int, mode: str = "reflect") -> torch.Tensor:
    """Extend bottom and right to a multiple of the window.

    ``reflect`` mirrors without repeating the edge and adds nothing where the size already fits. ``flip`` is
    what SwinIR's test script does: the edge is repeated, and a whole multiple is added even where the size
    fits. Both mirror as often as needed, so an image may be smaller than its padding.

    Args:
        image: ``[..., H, W]``.
        multiple: the window size in pixels.
        mode: ``reflect`` or ``flip``.

    Returns:
        ``[..., H', W']`` with H' and W' multiples of ``multiple``.

    Raises:
        ValueError: an unknown mode.
    """
    for axis in (-2, -1):
        n = image.shape[axis]
        index = padded_indices(n, multiple, mode)
        if len(index) != n:
            image = image.index_select(axis, torch.from_numpy(index).to(image.device))
    return image


def padded_indices(n: int, multiple: int, mode: str = "reflect") -> np.ndarray:
    """For each pixel along a padded axis the pixel that it repeats; see :func:`pad_to_multiple`.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in PADDING_MODES:
        raise ValueError(f"padding must be one of {', '.join(PADDING_MODES)}, not {mode!r}")
    target = (n // multiple + 1) * multiple if mode == "flip" else -(-n // multiple) * multiple
    return mirror(np.arange(target), n, repeat_edge=mode == "flip")
