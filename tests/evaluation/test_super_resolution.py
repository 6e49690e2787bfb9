"""super_resolve: padding, tiles and ensemble do what they say, without a seam; what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from taylorir.datasets.sets import NamedImage, load_images
from taylorir.evaluation.scores import evaluate
from taylorir.evaluation.super_resolution import (
    NonFiniteError,
    default_overlap,
    dihedral,
    dihedral_inverse,
    super_resolve,
    super_resolved_parts,
)
from taylorir.evaluation.tiles import blend_tiles, plan_axis
from taylorir.images.metrics import psnr
from taylorir.images.pixels import to_image
from taylorir.networks.variants import build_model
from taylorir.rows.committed import read_rows
from tests.pictures import noise


class Nearest(nn.Module):
    """Each output pixel depends on one input pixel, so tiles cannot change it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Ramp(nn.Module):
    """Adds a ramp along the width: not symmetric, so that flips and transposes show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return y + torch.linspace(0, 0.2, y.shape[-1])


class Scaled(nn.Module):
    """Doubles the sides; in half precision the first factor overflows, the second would undo it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.constant_(self.up.weight, factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.up(x) / self.up.weight.mean()).repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_model("swinir_tiny_x2").eval()


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
        first = torch.full((3, 128, 128), torch.nan)
        for top, left, part in blend_tiles(lambda *place: lr[:, :, *place], tiny, axis, axis, 2):
            covered = first[:, top : top + part.shape[1], left : left + part.shape[2]]
            assert covered.isnan().all(), "no part covers another"
            covered.copy_(part)
        alone = tiny(lr[..., :40, :40])[0]
    assert axis.starts == (0, 24) and not first.isnan().any()
    torch.testing.assert_close(first[:, :48, :48], alone[:, :48, :48], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 97), (97, 30)], ids=str)
@pytest.mark.parametrize("overlap", [0, 5, 13], ids="overlap {}".format)
def test_parts_cover_the_result_whatever_side_is_longer(size, overlap):
    lr = noise(*size, 3)
    seen = np.zeros((2 * size[0], 2 * size[1]), int)
    for top, left, part in super_resolved_parts(Nearest(), lr, upscale=2, tile=16, overlap=overlap):
        seen[top : top + part.shape[0], left : left + part.shape[1]] += 1
        rows, columns = np.arange(top, top + part.shape[0]), np.arange(left, left + part.shape[1])
        assert np.array_equal(part, lr[rows[:, None] // 2, columns // 2])
    assert (seen == 1).all()


def test_16_bits_stay_16_bits():
    lr = np.random.default_rng(0).integers(0, 2**16, (9, 20, 3), dtype=np.uint16)
    for tile in (None, 8):
        sr = super_resolve(Nearest(), lr, upscale=2, tile=tile, overlap=2)
        assert sr.dtype == np.uint16 and np.array_equal(sr, lr.repeat(2, 0).repeat(2, 1))
    flat = super_resolve("bicubic", np.full((9, 9, 3), 54321, np.uint16), upscale=2)
    assert flat.dtype == np.uint16 and (flat == 54321).all()


@pytest.mark.parametrize(("name", "overlap"), [("swinir_tiny_x2", 32), ("taylorswinir_s_x2", 96)])
def test_tiles_share_two_windows_unless_told(name, overlap):
    with torch.device("meta"):
        assert default_overlap(build_model(name)) == overlap
    assert default_overlap(Nearest()) == 32


def test_measured_tiles_show_no_seam_with_the_default_overlap():
    rows = read_rows("tiles.csv")
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


@pytest.mark.parametrize("tile", [None, 16], ids="tile {}".format)
@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_what_is_not_finite_is_no_picture(tile, weight):
    with pytest.raises(NonFiniteError, match="the network returns NaN or infinity in float32"):
        super_resolve(Scaled(weight), noise(40, 16, 3), upscale=2, tile=tile, overlap=2)
    with pytest.raises(ValueError, match="images/x: the network returns NaN or infinity"):
        evaluate(Scaled(weight), [NamedImage("x", noise(40, 40, 3))], 2)


def test_half_precision_that_overflows_is_no_picture():
    lr = np.full((8, 8, 3), 200, np.uint8)
    assert np.abs(super_resolve(Scaled(1e5), lr // 3, upscale=2).astype(int) - 198).max() <= 1
    with pytest.raises(NonFiniteError, match="in float16"):
        super_resolve(Scaled(1e5), lr, upscale=2, precision="float16")


@pytest.mark.parametrize("tile", [None, 16], ids="tile {}".format)
def test_a_model_of_another_scale_is_no_corner(tile):
    with pytest.raises(ValueError, match=r"turns \[1, 3, 16, 16\] into \[1, 3, 32, 32\].* upscaled by 3"):
        super_resolve(Nearest(), noise(16, 16, 3), upscale=3, tile=tile)
