"""Degradations of real photographs: named, seeded, with units.

A name says everything. ``noise15`` is Gaussian noise of standard deviation 15 grey levels, ``jpeg60`` a JPEG
round trip at quality 60, ``blur1.2`` a Gaussian blur of standard deviation 1.2 pixels; these act on the LR
image. ``kernel_box``, ``kernel_lanczos`` and ``kernel_nearest`` replace the bicubic kernel that LR is made
with. Names join with ``+`` and are applied from left to right: ``blur1.2+noise5+jpeg90``.

Where the scale is 1 they make the input of restoration: denoising, JPEG artefacts.

Shape legend: images are uint8 ``[H, W, C]``, RGB or grey (C = 1); s is the scale.
"""

from __future__ import annotations

import re
import zlib
from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from taylorir.images.resize import imresize

#: What the notebook of real images compares.
DEGRADATIONS = (
    "none",
    "noise5",
    "noise15",
    "noise25",
    "jpeg90",
    "jpeg60",
    "jpeg30",
    "blur0.8",
    "blur1.6",
    "kernel_box",
    "kernel_lanczos",
    "kernel_nearest",
)

_KERNELS = {
    "kernel_box": Image.Resampling.BOX,
    "kernel_lanczos": Image.Resampling.LANCZOS,
    "kernel_nearest": Image.Resampling.NEAREST,
}
_STEP = re.compile(r"(noise|jpeg|blur)(\d+(?:\.\d+)?)")


def degrade(hr: np.ndarray, scale: int, name: str, *, seed: int = 0) -> np.ndarray:
    """LR of an HR image, degraded as ``name`` says.

    Args:
        hr: uint8 ``[H, W, C]``; H and W multiples of ``scale``.
        scale: the factor s by which LR is smaller.
        name: one, or several joined with ``+``, a ``kernel_*`` first; ``none`` is MATLAB's bicubic alone.
        seed: of the noise. The same seed, name and size give the same noise, whatever was drawn before.

    Returns:
        uint8 ``[H / s, W / s, C]``.

    Raises:
        ValueError: an unknown name, a value out of its range, or an HR size that is no multiple of the scale.
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"hr must have sides that are multiples of {scale}, not {height}x{width}")
    steps = [] if name == "none" else name.split("+")
    if steps and steps[0] in _KERNELS:
        size = (width // scale, height // scale)
        lr = _as_array(_as_picture(hr).resize(size, _KERNELS[steps.pop(0)]))
    else:
        lr = imresize(hr, 1 / scale)
    for step in steps:
        lr = _apply(lr, step, seed)
    return lr


def check_degradation(name: str) -> None:
    """Raises: ValueError: as :func:`degrade`, before there is any image."""
    degrade(np.zeros((8, 8, 3), np.uint8), 2, name)


def _apply(image: np.ndarray, step: str, seed: int) -> np.ndarray:
    match = _STEP.fullmatch(step)
    if match is None:
        raise ValueError(
            f"degradation {step!r} is not known; expected noise<grey levels>, jpeg<quality>, blur<pixels>, "
            f"or, in first place, one of {', '.join(_KERNELS)}"
        )
    kind, value = match[1], float(match[2])
    if kind == "noise":
        return add_noise(image, value, seed=zlib.crc32(f"{step}/{seed}".encode()))
    if kind == "jpeg":
        return jpeg(image, value)
    return blur(image, value)


def add_noise(image: np.ndarray, sigma: float, *, seed: int = 0) -> np.ndarray:
    """Add independent Gaussian noise to each value.

    Rounded and clipped, as a file holds it. Papers on denoising add it to floating-point values and clip
    none, so their figures are of an easier task.

    Args:
        image: uint8 ``[H, W, C]``.
        sigma: standard deviation in grey levels (of 255); at least 0.
        seed: of NumPy's PCG64.

    Returns:
        uint8, rounded and clipped.

    Raises:
        ValueError: a negative sigma.
    """
    if sigma < 0:
        raise ValueError(f"sigma must be at least 0 grey levels, not {sigma}")
    noise = np.random.default_rng(seed).standard_normal(image.shape) * sigma
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """A JPEG round trip with 4:2:0 chroma, as cameras and the web do.

    Args:
        image: uint8 ``[H, W, C]``.
        quality: 1 (worst) to 95, the IJG scale.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: a quality out of 1..95.
    """
    if not 1 <= quality <= 95 or quality != int(quality):
        raise ValueError(f"quality must be an integer of 1..95, not {quality:g}")
    buffer = BytesIO()
    _as_picture(image).save(buffer, format="JPEG", quality=int(quality), subsampling="4:2:0")
    return _as_array(Image.open(buffer))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, symmetric border, kernel cut at 4 sigma.

    Args:
        image: uint8 ``[H, W, C]``.
        sigma: standard deviation in pixels of this image; above 0.

    Returns:
        uint8, rounded.

    Raises:
        ValueError: a sigma that is not positive.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, in pixels, not {sigma}")
    blurred = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="reflect")
    return np.rint(blurred).astype(np.uint8)


def _as_picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _as_array(picture: Image.Image) -> np.ndarray:
    return np.atleast_3d(np.array(picture))
