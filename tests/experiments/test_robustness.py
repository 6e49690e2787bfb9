"""Robustness rows: the clean row is the protocol's, the interval is worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from taylorir.datasets.sets import NamedImage, make_pair
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.experiments.robustness import paired_gain, robustness_rows, sharpness
from taylorir.images.metrics import psnr


def photo(seed: int) -> NamedImage:
    coarse = np.random.default_rng(seed).integers(40, 220, (7, 9, 3))
    return NamedImage(f"photo{seed}", coarse.repeat(6, axis=0).repeat(6, axis=1).astype(np.uint8))


def test_rows_follow_the_protocol_and_noise_lowers_them():
    image = photo(0)
    rows = robustness_rows({"bicubic": "bicubic"}, [image], 2, degradations=("none", "noise5", "noise25"))
    lr, hr = make_pair(image.image, 2)
    clean = psnr(super_resolve("bicubic", lr, upscale=2), hr, crop_border=2)
    assert rows["psnr_y"].iloc[0] == pytest.approx(clean, abs=1e-4)
    assert rows["psnr_y"].is_monotonic_decreasing and rows["psnr_y"].nunique() == 3
    assert rows["sharpness"].is_monotonic_increasing
    assert (rows["seed"] == 0).all()


def test_sharpness_of_a_ramp():
    ramp = np.broadcast_to(np.arange(10, dtype=np.uint8)[None, :, None] * 2, (5, 10, 3))
    assert sharpness(ramp) == pytest.approx(2 * 219 / 255)
    assert sharpness(np.full((4, 4, 3), 9, np.uint8)) == 0


def test_paired_gain_by_hand():
    rows = pd.DataFrame(
        [
            {"model": model, "image": image, "degradation": "none", "psnr_y": value}
            for model, values in {"a": (30.0, 20.0, 25.0), "b": (31.0, 20.5, 26.5)}.items()
            for image, value in zip("xyz", values, strict=True)
        ]
    )
    gain = paired_gain(rows, "a", "b").iloc[0]
    assert gain["images"] == 3
    assert gain["gain"] == pytest.approx(1.0)
    half = 4.302653 * 0.5 / np.sqrt(3)  # Student's t for two degrees of freedom; gains 1.0, 0.5, 1.5
    assert (gain["low"], gain["high"]) == pytest.approx((1.0 - half, 1.0 + half))
