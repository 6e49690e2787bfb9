"""metrics: values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taylorir.images.metrics import psnr, shaved_border, ssim
from taylorir.images.pixels import rgb_to_y
from tests.pictures import noise


def test_psnr_by_hand():
    hr = np.zeros((4, 4, 3), np.uint8)
    sr = hr.copy()
    sr[0, 0] = (255, 0, 0)  # luma differs by 65.481 at one of 16 pixels
    assert psnr(sr, hr) == pytest.approx(10 * math.log10(255**2 / (65.481**2 / 16)), abs=1e-12)
    assert psnr(sr, hr, y_channel=False) == pytest.approx(10 * math.log10(48), abs=1e-12)
    assert psnr(sr, hr, crop_border=1) == math.inf


def test_a_grey_level_is_worth_219_of_255_in_luma():
    hr, sr = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 101, np.uint8)
    assert psnr(sr, hr) == pytest.approx(20 * math.log10(255 * 255 / 219), abs=1e-9)
    for grey in (np.s_[..., 0], np.s_[..., :1]):
        assert psnr(sr[grey], hr[grey]) == pytest.approx(20 * math.log10(255), abs=1e-9)


def test_the_factor_is_shaved_and_nothing_where_nothing_is_enlarged():
    assert [shaved_border(upscale) for upscale in (1, 2, 8)] == [0, 2, 8]


def test_luma_is_that_of_images():
    hr, sr = noise(9, 13, 3), noise(9, 13, 3, seed=1)
    error = np.mean((rgb_to_y(hr) - rgb_to_y(sr)) ** 2)
    assert psnr(sr, hr) == pytest.approx(10 * math.log10(255**2 / error), abs=1e-12)


def test_ssim_of_constant_images_is_its_luminance_term():
    hr, sr = np.full((11, 11), 50, np.uint8), np.full((11, 11), 100, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(sr, hr) == pytest.approx((2 * 50 * 100 + c1) / (50**2 + 100**2 + c1), abs=1e-12)
    assert ssim(hr, hr) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_one_window_by_its_definition():
    x, y = noise(11, 11).astype(float), noise(11, 11, seed=1).astype(float)
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    cov = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x.astype(np.uint8), y.astype(np.uint8)) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_colour_is_the_mean_over_channels_and_on_luma_by_default():
    hr, sr = noise(20, 30, 3), noise(20, 30, 3, seed=1)
    channels = [ssim(sr[..., c].copy(), hr[..., c].copy()) for c in range(3)]
    assert ssim(sr, hr, y_channel=False) == pytest.approx(np.mean(channels), abs=1e-12)
    assert ssim(sr, hr, crop_border=4) == pytest.approx(ssim(sr[4:-4, 4:-4], hr[4:-4, 4:-4]), abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("sr", "border", "error", "message"),
    [
        (np.zeros((20, 20, 3)), 0, TypeError, "sr must be a uint8 array"),
        (np.zeros((20, 21, 3), np.uint8), 0, ValueError, "differ in shape"),
        (np.zeros((20, 20, 3), np.uint8), 10, ValueError, "crop_border 10 does not fit"),
        (np.zeros((20, 20, 3), np.uint8), -1, ValueError, "crop_border -1"),
    ],
)
def test_misuse(metric, sr, border, error, message):
    with pytest.raises(error, match=message):
        metric(sr, np.zeros((20, 20, 3), np.uint8), crop_border=border)


def test_ssim_needs_its_window():
    with pytest.raises(ValueError, match="at least 11x11 pixels, not 10x12"):
        ssim(np.zeros((12, 10, 3), np.uint8), np.zeros((12, 10, 3), np.uint8))
