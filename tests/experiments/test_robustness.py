"""Robustness rows: the clean row is the protocol's, the interval is worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from taylorir.datasets.sets import NamedImage, make_pair
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.experiments.budgets import shown_pair
from taylorir.experiments.growing import digest_of, named_models
from taylorir.experiments.robustness import paired_gain, robustness_rows, sharpness
from taylorir.images.degradations import DEGRADATIONS
from taylorir.images.metrics import psnr
from taylorir.rows.committed import read_rows


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
    values = {
        "none": {"a0": (30.0, 20.0), "a1": (30.0, 20.0), "b0": (31.0, 21.0), "b1": (31.0, 22.0)},
        "blur": {"a0": (24.0, 16.0), "a1": (25.0, 16.0), "b0": (25.0, 18.0), "b1": (25.0, 18.0)},
    }
    rows = pd.DataFrame(
        {"model": model, "image": image, "degradation": name, "psnr_y": value}
        for name, models in values.items()
        for model, psnrs in {**models, "bicubic": (25.0, 17.0)}.items()
        for image, value in zip("xy", psnrs, strict=True)
    )
    gain = paired_gain(rows, ("a0", "a1"), ("b0", "b1"), floor={"bicubic": ["bicubic"]})
    assert gain.degradation.tolist() == ["none", "blur"]
    # clean: seeds gain 1 and 1.5, images 1 and 1.5: both means have the standard error 0.25
    assert gain.difference.tolist() == pytest.approx([1.25, 1.25])
    half = 12.706204736 * np.hypot(0.25, 0.25)  # Student's t for one degree of freedom
    assert (gain.low[0], gain.high[0]) == pytest.approx((1.25 - half, 1.25 + half))
    assert gain.verdict.tolist() == ["2 images: no verdict", "one below bicubic: not judged"]
    least = 2 * gain.p[0]
    assert gain.p_holm.tolist() == pytest.approx([least, max(least, gain.p[1])])
    low = rows.assign(psnr_y=rows.psnr_y.where(rows.model == "bicubic", 9.0))
    below = paired_gain(low, ("a0",), ("b0",), floor={"bicubic": ["bicubic"]})
    assert set(below.verdict) == {"both below bicubic: not judged"}
    linear = {"bicubic": ["bicubic"], "no transformer": ["a0", "b1"]}  # 25.75 dB clean, 20.75 blurred
    best = paired_gain(rows, ("a0",), ("b0",), floor=linear)
    assert best.verdict.tolist() == ["one below no transformer: not judged", "one below bicubic: not judged"]
    over = paired_gain(rows, ("bicubic",) * 2, ("b0", "b1"))
    assert over.difference.tolist() == pytest.approx([5.25, 0.5])
    with pytest.raises(ValueError, match="as many, got 1 and 2"):
        paired_gain(rows, ("bicubic",), ("b0", "b1"))


def test_the_stored_rows_are_of_the_stored_weights():
    rows = read_rows("robustness.csv")
    pair = shown_pair()
    models = named_models(["bicubic", "lanczos", *pair.reference, *pair.other, *pair.floor])
    assert {*rows["model"]} == {*models}
    for name, of_model in rows.groupby("model"):
        assert {*of_model["weights"]} == {digest_of(models[name])}
        assert len(of_model) == rows["image"].nunique() * len(DEGRADATIONS)
