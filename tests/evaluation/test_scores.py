"""evaluate and tiles: no seam, padding and ensemble do what they say, rows match those of the field."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from taylorir.datasets.manifest import DATA_FOLDER
from taylorir.datasets.sets import NamedImage, load_images, make_pair
from taylorir.evaluation.scores import (
    default_model,
    default_overlap,
    dihedral,
    dihedral_inverse,
    evaluate,
    load_model,
    super_resolve,
)
from taylorir.evaluation.tiles import auto_tile, blend_strips, parse_memory, plan_axis, resident_memory
from taylorir.experiments.protocol_choices import (
    CHOICES,
    choice_effects,
    mean_with_own_grey,
    measure_choices,
)
from taylorir.images.images import imresize, rgb_to_y, to_image
from taylorir.images.metrics import psnr, ssim
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
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


class Nearest(nn.Module):
    """Each output pixel depends on one input pixel, so tiles cannot change it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Ramp(nn.Module):
    """Adds a ramp along the width: not symmetric, so that flips and transposes show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return y + torch.linspace(0, 0.2, y.shape[-1])


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


def test_an_image_too_small_is_named():
    with pytest.raises(ValueError, match=r"images/dot: SSIM needs at least 11x11 pixels"):
        evaluate("bicubic", [NamedImage("dot", noise(8, 8, 3))], 2)


# ------------------------------------------------------------------------------------ padding and ensemble


def test_padding_is_what_the_network_sees_and_the_rest_is_cut(tiny):
    lr = noise(9, 13, 3)
    reflected = np.pad(lr, ((0, 7), (0, 3), (0, 0)), mode="reflect")
    flipped = np.pad(lr, ((0, 7), (0, 3), (0, 0)), mode="symmetric")
    with torch.inference_mode():
        for padding, padded in (("reflect", reflected), ("flip", flipped)):
            out = tiny(torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].float() / 255)
            expected = to_image(out[..., :18, :26])
            assert np.array_equal(super_resolve(tiny, lr, padding=padding), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (7, 30)], ids=str)
@pytest.mark.parametrize("tile", [None, 16, "auto"])
def test_small_images_work(tiny, size, tile):
    overlap = 4
    assert super_resolve(tiny, noise(*size, 3), tile=tile, overlap=overlap).shape == (
        2 * size[0],
        2 * size[1],
        3,
    )


def test_a_line_of_5000_pixels_is_done_in_tiles(tiny):
    lr = noise(1, 5000, 3)
    sr = super_resolve(tiny, lr, tile=64, overlap=32)
    whole = super_resolve(tiny, lr[:, :200])
    assert sr.shape == (2, 10_000, 3)
    assert np.abs(sr[:, :240].astype(int) - whole[:, :240]).max() <= 2


def test_the_eight_symmetries_differ_and_are_undone():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    seen = {str(dihedral(image, i).tolist()) for i in range(8)}
    assert len(seen) == 8
    for i in range(8):
        assert torch.equal(dihedral_inverse(dihedral(image, i), i), image)


def test_self_ensemble_is_the_mean_over_the_symmetries():
    lr = noise(4, 6, 3) // 2
    up = lr.astype(float).repeat(2, 0).repeat(2, 1) / 255
    rows, columns = np.linspace(0, 0.2, 8), np.linspace(0, 0.2, 12)
    ramps = [columns[None, :], columns[None, ::-1]] * 2 + [rows[:, None], rows[::-1, None]] * 2
    expected = up + sum(np.broadcast_to(r, (8, 12)) for r in ramps)[..., None] / 8
    sr = super_resolve(Ramp(), lr, upscale=2, self_ensemble=True)
    assert np.abs(sr - expected * 255).max() <= 0.5 + 1e-4
    assert not np.array_equal(sr, super_resolve(Ramp(), lr, upscale=2))


def test_training_mode_is_restored():
    model = build_model("swinir_tiny_x2", drop_path_rate=0.5).train()
    assert np.array_equal(super_resolve(model, noise(8, 8, 3)), super_resolve(model, noise(8, 8, 3)))
    assert model.training


# --------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "window"),
    [(64, 32, 8, 8), (8, 64, 8, 8), (72, 40, 16, 8), (200, 96, 32, 48), (97, 33, 0, 1), (64, 24, 16, 8)],
    ids=str,
)
def test_tiles_cover_on_the_grid_and_weights_sum_to_one(length, tile, overlap, window):
    length = -(-length // window) * window
    axis = plan_axis(length, tile, overlap, window, 3)
    assert axis.starts[0] == 0 and axis.starts[-1] + axis.size == length and axis.size <= max(tile, 1)
    assert all(start % window == 0 for start in axis.starts)
    total = np.zeros(3 * length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights >= 0).all() and len(weights) == 3 * axis.size
        total[3 * start : 3 * (start + axis.size)] += weights
    assert total == pytest.approx(1.0, abs=1e-6)
    steps = np.diff(axis.starts)
    assert ((0 < steps) & (steps <= axis.size - overlap)).all()


def test_a_tiles_outermost_pixels_weigh_nothing():
    axis = plan_axis(96, 64, 32, 8, 1)
    assert axis.starts == (0, 32)
    assert axis.weights[0].tolist()[:40] == [1.0] * 40 and axis.weights[0].tolist()[56:] == [0.0] * 8
    assert axis.weights[1].tolist()[:8] == [0.0] * 8 and axis.weights[1][16] == pytest.approx(0.5, abs=0.06)


def test_pointwise_network_is_not_changed_by_tiles():
    lr = noise(50, 41, 3)
    assert np.array_equal(
        super_resolve(Nearest(), lr, upscale=2, tile=16, overlap=5), lr.repeat(2, 0).repeat(2, 1)
    )


def test_what_one_tile_covers_alone_is_the_network_on_that_tile(tiny):
    lr = torch.rand(1, 3, 64, 64)
    axis = plan_axis(64, 40, 16, 8, 2)
    with torch.inference_mode():
        strips = [strip for _, strip in blend_strips(lr, tiny, axis, axis, 2)]
        alone = tiny(lr[..., :40, :40])[0]
    first = torch.cat(strips, dim=1)
    assert first.shape == (3, 128, 128) and axis.starts == (0, 24)
    torch.testing.assert_close(first[:, :48, :48], alone[:, :48, :48], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "overlap"), [("swinir_tiny_x2", 32), ("taylorswinir_s_x2", 96)])
def test_tiles_share_two_windows_unless_told(name, overlap):
    with torch.device("meta"):
        assert default_overlap(build_model(name)) == overlap
    assert default_overlap(Nearest()) == 32


def test_measured_tiles_show_no_seam_with_the_default_overlap():
    rows = pd.read_csv(DATA_FOLDER / "results" / "tiles.csv")
    default = rows.sort_values("overlap").groupby("model").tail(1)
    assert sorted(default["overlap"]) == [32, 96]
    assert (default["psnr"] >= 50).all() and (default["near_border"] <= 2 * default["elsewhere"]).all()


def test_tiled_is_close_to_whole_and_shows_no_seam(tiny):
    lr = load_images("samples_held_out")[1].image[100:244, 100:292]
    whole = super_resolve(tiny, lr).astype(int)
    tiled = super_resolve(tiny, lr, tile=80, overlap=32).astype(int)
    assert psnr(tiled.astype(np.uint8), whole.astype(np.uint8), y_channel=False) >= 50
    axes = [plan_axis(side, 80, 32, 8, 2) for side in lr.shape[:2]]
    near = np.zeros(whole.shape[:2], bool)
    for dim, axis in enumerate(axes):
        for edge in (*axis.starts[1:], *(start + axis.size for start in axis.starts[:-1])):
            index = [slice(None)] * 2
            index[dim] = slice(2 * edge - 4, 2 * edge + 4)
            near[tuple(index)] = True
    difference = np.abs(tiled - whole).mean(axis=2)
    assert difference[near].mean() <= 2 * difference[~near].mean() + 1e-9


def test_tiles_show_their_progress(tiny, capsys):
    super_resolve(tiny, noise(40, 16, 3), tile=32, overlap=8, progress=True)
    assert "tiles: " in (bar := capsys.readouterr().err) and "/2 [" in bar


def test_memory_decides_the_tile(tiny):
    def tile(mebibytes: float) -> int:
        budget = resident_memory() + int(mebibytes * 2**20)
        return auto_tile(tiny, window=8, upscale=2, overlap=16, output_pixels=10_000, memory=budget)

    sides = [tile(60), tile(240)]
    assert sides[0] < sides[1] and all(side % 8 == 0 for side in sides)
    assert 1.6 <= sides[1] / sides[0] <= 2.6  # four times the memory is twice the side
    with pytest.raises(ValueError, match="memory is too small: a tile of 32 pixels needs about"):
        auto_tile(tiny, window=8, upscale=2, overlap=16, output_pixels=10_000, memory=2**20)


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2**31), ("500 MB", 5 * 10**8), ("1.5gib", 3 * 2**29), (4096, 4096)]
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "2 gigs", "GiB", "-1GiB", "0", "nan", "inf"])
def test_memory_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="memory must be a"):
        parse_memory(text)


# -------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upscale": 3}, "upscale 3 was asked of a model that upscales by 2"),
        ({"padding": "wrap"}, "padding must be one of reflect, flip"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"tile": 4}, "tile must be at least the window of 8"),
        ({"tile": 16}, "tile must be at least overlap"),
        ({"tile": "big"}, "tile must be a number"),
        ({"tile": 64, "overlap": -1}, "overlap must not be negative"),
        ({"tile": "auto", "memory": "much"}, "memory must be a size"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_super_resolve_refuses(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        super_resolve(tiny, noise(80, 80, 3), **options)


def test_images_and_models_that_are_none(tiny):
    with pytest.raises(TypeError, match="uint8"):
        super_resolve(tiny, np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="RGB image"):
        super_resolve(tiny, noise(8, 8))
    with pytest.raises(ValueError, match="load a network first"):
        super_resolve("swinir_s_x2", noise(8, 8, 3), upscale=2)
    with pytest.raises(ValueError, match="upscale must be given"):
        super_resolve("bicubic", noise(8, 8, 3))


def test_load_model(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("taylorir.evaluation.scores.WEIGHTS_FOLDER", tmp_path)
    assert load_model("bicubic") == "bicubic"
    with pytest.raises(ValueError, match="no trained weights for 'swinir_tiny_x2'"):
        load_model("swinir_tiny_x2")
    with pytest.raises(ValueError, match="unknown model 'swinr_tiny_x2'; did you mean swinir_tiny_x2"):
        load_model("swinr_tiny_x2")
    with pytest.raises(FileNotFoundError, match=r"no such model file: some/where\.safetensors"):
        load_model("some/where.safetensors")
    with pytest.raises(ValueError, match="no trained weights for x2"):
        default_model(2)
    path = save_weights(tmp_path / "swinir_tiny_x2.safetensors", tiny, {})
    assert default_model(2) == "swinir_tiny_x2"
    for name in ("taylorswinir_mini_x2_s1", "taylorswinir_mini_x2_s0", "taylorswinir_s_x3", "taylor_w8_x2"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [default_model(2), default_model(3)] == ["taylorswinir_mini_x2_s0", "taylorswinir_s_x3"]
    released = tmp_path / "released.pth"
    torch.save({"params": tiny.state_dict()}, released)
    for name in ("swinir_tiny_x2", str(path), str(released)):
        loaded = load_model(name)
        assert torch.equal(loaded.conv_first.weight, tiny.conv_first.weight) and not loaded.training


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
    rows = pd.read_csv(ROOT / "data" / "results" / "protocol_choices.csv")
    means = mean_with_own_grey(rows[rows.set == "Set14"], ["bridge"]).set_index("upscale")
    for scale, published, column_a in ((2, 30.24, 30.231), (3, 27.55, 27.537), (4, 26.00, 25.994)):
        assert means.psnr_own_grey[scale] == pytest.approx(column_a, abs=0.005)
        assert means.psnr_own_grey[scale] == pytest.approx(published, abs=0.015)
        assert means.psnr_standard[scale] - published > 0.07
