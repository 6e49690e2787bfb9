"""PSNR and SSIM as super-resolution papers report them: on the luma of 8-bit images, border shaved."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
#: White in 8 bits: the peak of PSNR, and the range of SSIM's constants.
PEAK = 255.0


def shaved_border(upscale: int) -> int:
    """Pixels that the protocol shaves from each side: the factor; none where nothing is enlarged."""
    return upscale if upscale > 1 else 0


def psnr(sr: np.ndarray, hr: np.ndarray, *, crop_border: int = 0, y_channel: bool = True) -> float:
    """Peak signal-to-noise ratio, 10 log10(255^2 / MSE).

    Args:
        sr: uint8 ``[H, W, 3]``, or ``[H, W]`` or ``[H, W, 1]`` for an image measured on its own grey values.
        hr: the same shape and dtype.
        crop_border: pixels shaved from each side, by convention :func:`shaved_border`.
        y_channel: measure on the unrounded BT.601 luma (studio swing); False: on all values of the three
            channels.

    Returns:
        dB; infinite for equal images.

    Raises:
        TypeError: not uint8 arrays.
        ValueError: shapes differ, are no images, or are smaller than the border.
    """
    sr_values, hr_values = _prepare(sr, hr, crop_border, y_channel)
    error = float(np.mean((sr_values - hr_values) ** 2))
    return float("inf") if error == 0.0 else float(10.0 * np.log10(PEAK**2 / error))


def ssim(sr: np.ndarray, hr: np.ndarray, *, crop_border: int = 0, y_channel: bool = True) -> float:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004, equation 13).

    Gaussian window of 11x11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, data range 255; the mean is over the
    region where the window fits (no padding), and over channels where there are three.

    Args:
        sr: uint8 ``[H, W, 3]``, or ``[H, W]`` or ``[H, W, 1]`` for an image measured on its own grey values.
        hr: the same shape and dtype.
        crop_border: pixels shaved from each side, by convention :func:`shaved_border`.
        y_channel: measure on the unrounded BT.601 luma (studio swing); False: the mean over the three
            channels.

    Returns:
        At most 1, reached by equal images.

    Raises:
        TypeError: not uint8 arrays.
        ValueError: shapes differ, are no images, or are smaller than the border and the window need.
    """
    x, y = _prepare(sr, hr, crop_border, y_channel)
    if min(x.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, not {x.shape[1]}x{x.shape[0]} shaved"
        )
    return float(
        structural_similarity(
            x,
            y,
            data_range=PEAK,
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
            channel_axis=2 if x.ndim == 3 else None,
        )
    )


def _prepare(sr: np.ndarray, hr: np.ndarray, border: int, y_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Check, shave, and take the luma: float64 ``[H, W]``, or ``[H, W, 3]`` when all channels count."""
    for name, image in (("sr", sr), ("hr", hr)):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise TypeError(
                f"{name} must be a uint8 array, not {getattr(image, 'dtype', type(image).__name__)}"
            )
    if sr.shape != hr.shape:
        raise ValueError(f"sr and hr differ in shape: {list(sr.shape)} and {list(hr.shape)}")
    if hr.ndim != 2 and (hr.ndim != 3 or hr.shape[2] not in (1, 3)):
        raise ValueError(f"images must be [H, W, 3], [H, W, 1] or [H, W], not {list(hr.shape)}")
    height, width = hr.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"crop_border {border} does not fit an image of {width}x{height} pixels")
    kept = np.s_[border : height - border, border : width - border]
    return _values(sr[kept], y_channel), _values(hr[kept], y_channel)


def _values(image: np.ndarray, y_channel: bool) -> np.ndarray:
    """Luma as ``images.rgb_to_y`` defines it (a test holds the two equal; this module imports no sibling)."""
    values = image.astype(np.float64)
    if values.ndim == 3 and values.shape[2] == 1:
        return values[:, :, 0]
    if values.ndim == 3 and y_channel:
        return 16.0 + values @ (np.array([65.481, 128.553, 24.966]) / 255.0)
    return values
