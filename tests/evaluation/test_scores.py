"""evaluate: rows match those of the field, and what each choice of the protocol is worth."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from taylorir.datasets.sets import NamedImage, load_images, make_pair
from taylorir.evaluation.scores import evaluate
from taylorir.evaluation.super_resolution import load_model, super_resolve
from taylorir.experiments.protocol_choices import (
    CHOICES,
    choice_effects,
    mean_with_own_grey,
    measure_choices,
)
from taylorir.images.degradations import degrade
from taylorir.images.metrics import psnr, ssim
from taylorir.images.pixels import rgb_to_y, to_grey
from taylorir.images.resize import imresize
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from taylorir.rows.committed import read_rows
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TAYLORIR_SHARED", ROOT.parent / "shared"))
COLUMN_A = {  # PSNR and SSIM of bicubic at x2, x3, x4, as measured independently on the same files
    "Set5": ((33.673, 0.9303), (30.403, 0.8689), (28.429, 0.8111)),
    "Set14": ((30.325, 0.8699), (27.631, 0.7759), (26.088, 0.7048)),
    "BSD100": ((29.560, 0.8434), (27.209, 0.7391), (25.961, 0.6681)),
    "Urban100": ((26.876, 0.8405), (24.458, 0.7352), (23.140, 0.6581)),
    "Manga109": ((30.815, 0.9349), (26.951, 0.8565), (24.895, 0.7876)),
}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_model("swinir_tiny_x2").eval()


# -------------------------------------------------------------------------------------------- bicubic rows


@pytest.mark.parametrize("name", COLUMN_A)
def test_committed_bicubic_rows_are_column_a(name):
    with (ROOT / "data" / "results" / "bicubic.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == name]
    for scale, (db, similarity) in zip((2, 3, 4), COLUMN_A[name], strict=True):
        cell = [row for row in rows if row["upscale"] == str(scale)]
        assert abs(np.mean([float(row["psnr_y"]) for row in cell]) - db) <= 0.005
        assert abs(np.mean([float(row["ssim_y"]) for row in cell]) - similarity) <= 0.0002


@pytest.mark.skipif(not (SHARED / "datasets").is_dir(), reason="no data sets (set TAYLORIR_SHARED)")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_on_set5_now(scale):
    rows = evaluate("bicubic", "Set5", scale, data_root=SHARED / "datasets")
    db, similarity = COLUMN_A["Set5"][scale - 2]
    assert abs(rows.psnr_y.mean() - db) <= 0.005 and abs(rows.ssim_y.mean() - similarity) <= 0.0002


def test_a_row_says_what_was_measured():
    image = noise(41, 53, 3)
    rows = evaluate("bicubic", [NamedImage("x", image)], 3)
    lr, hr = make_pair(image, 3)
    row = rows.iloc[0]
    assert len(rows) == 1 and (row.model, row.set, row.image, row.upscale) == ("bicubic", "images", "x", 3)
    assert (row.height, row.width) == (39, 51)
    assert row.psnr_y == psnr(imresize(lr, 3.0), hr, crop_border=3)
    assert row.ssim_y == ssim(imresize(lr, 3.0), hr, crop_border=3)
    assert {"device", "dtype", "torch", "commit", "seed", "date", "padding", "tile"} <= set(rows.columns)


def test_restoration_is_measured_on_the_degraded_image_without_a_border():
    image = noise(41, 53, 3)
    row = evaluate("bicubic", [NamedImage("x", image)], 1, degradation="noise25").iloc[0]
    degraded = degrade(image, 1, "noise25")
    assert (row.height, row.width, row.upscale, row.degradation) == (41, 53, 1, "noise25")
    assert row.psnr_y == psnr(degraded, image) and row.ssim_y == ssim(degraded, image)
    assert row.psnr_rgb == psnr(degraded, image, y_channel=False)
    with pytest.raises(ValueError, match="degradation must be given where nothing is enlarged"):
        evaluate("bicubic", [NamedImage("x", image)], 1)
    with pytest.raises(ValueError, match="degradation 'fog' is not known"):
        evaluate("bicubic", [NamedImage("x", image)], 2, degradation="fog")


def test_a_grey_network_is_measured_on_grey_values():
    model = build_model("swinir_denoise_gray", embed_dim=12, depths=[2], num_heads=2).eval()
    for parameter in (model.conv_last.weight, model.conv_last.bias):
        torch.nn.init.zeros_(parameter)  # the network gives its input back
    image = noise(41, 53, 3)
    row = evaluate(model, [NamedImage("x", image)], degradation="noise15", tile=24, overlap=8).iloc[0]
    grey = to_grey(image)
    error = degrade(grey, 1, "noise15").astype(float) - grey
    assert row.psnr_y == row.psnr_rgb == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))
    with pytest.raises(ValueError, match=r"lr must be a grey image \[H, W, 1\], not \[41, 53, 3\]"):
        super_resolve(model, image)


def test_an_image_too_small_is_named():
    with pytest.raises(ValueError, match=r"images/dot: SSIM needs at least 11x11 pixels"):
        evaluate("bicubic", [NamedImage("dot", noise(8, 8, 3))], 2)


def test_bicubic_is_a_model_and_all_else_is_a_network(tmp_path, tiny):
    assert load_model("bicubic") == "bicubic"
    loaded = load_model(save_weights(tmp_path / "weights.safetensors", tiny, {}))
    assert torch.equal(loaded.conv_first.weight, tiny.conv_first.weight)


# ------------------------------------------------------------------------------ what the choices are worth


def test_choices_by_hand():
    image = load_images("samples_held_out")[2].image[:61, :85]
    rows = measure_choices([NamedImage("coffee", image)], 2).set_index("choice")
    assert set(rows.index) == set(CHOICES) - {"own_grey"}
    hr = image[:60, :84]
    sr = imresize(imresize(hr, 0.5), 2.0)
    assert rows.psnr["standard"] == psnr(sr, hr, crop_border=2)
    assert rows.psnr["no_shave"] == psnr(sr, hr)
    assert rows.psnr["rgb"] == psnr(sr, hr, crop_border=2, y_channel=False)
    assert rows.psnr["crop_12"] == rows.psnr["standard"], "60 x 84 is a multiple of 12 already"
    rounded = [np.rint(rgb_to_y(x)).astype(np.uint8) for x in (sr, hr)]
    assert rows.psnr["rounded_luma"] == psnr(*rounded, crop_border=2)
    unrounded = imresize(imresize(hr.astype(float), 0.5), 2.0)
    expected = psnr(np.clip(np.floor(unrounded + 0.5), 0, 255).astype(np.uint8), hr, crop_border=2)
    assert rows.psnr["float_lr"] == expected


def test_a_grey_image_gains_the_swing_of_its_luma():
    grey = np.repeat(load_images("samples_held_out")[0].image[:96, :96, :1], 3, axis=2)
    rows = measure_choices([NamedImage("g", grey)], 2, choices=["standard", "own_grey"]).set_index("choice")
    assert rows.psnr["standard"] - rows.psnr["own_grey"] == pytest.approx(20 * np.log10(255 / 219), abs=1e-6)
    means = mean_with_own_grey(rows.reset_index(), ["g"]).iloc[0]
    assert (means.psnr_standard, means.psnr_own_grey) == (rows.psnr["standard"], rows.psnr["own_grey"])
    with pytest.raises(ValueError, match="no row 'own_grey' for other"):
        mean_with_own_grey(rows.reset_index(), ["other"])
    with pytest.raises(ValueError, match="choice must be one of standard"):
        measure_choices([], 2, choices=["none"])


def test_effects_are_differences_to_the_standard():
    rows = pd.DataFrame(
        {
            "choice": ["standard", "rgb", "standard", "rgb"],
            "image": ["a", "a", "b", "b"],
            "set": "s",
            "upscale": 2,
        }
        | {"psnr": [30.0, 29.0, 40.0, 36.0], "ssim": [0.9, 0.8, 0.7, 0.9]}
    )
    effects = choice_effects(rows)
    assert effects.choice.tolist() == ["rgb"]
    assert effects.delta_db.tolist() == pytest.approx(
        [-2.5]
    ) and effects.delta_ssim.tolist() == pytest.approx([0.05])


def test_committed_choices_explain_the_set14_row():
    rows = read_rows("protocol_choices.csv")
    means = mean_with_own_grey(rows[rows.set == "Set14"], ["bridge"]).set_index("upscale")
    for scale, published, column_a in ((2, 30.24, 30.231), (3, 27.55, 27.537), (4, 26.00, 25.994)):
        assert means.psnr_own_grey[scale] == pytest.approx(column_a, abs=0.005)
        assert means.psnr_own_grey[scale] == pytest.approx(published, abs=0.015)
        assert means.psnr_standard[scale] - published > 0.07
