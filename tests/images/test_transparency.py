"""transparency: what nobody sees does not show, and what is seen goes on into it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from taylorir.evaluation.files import upscale_file
from taylorir.images.io import open_picture
from taylorir.images.transparency import bleed_colours
from tests.pictures import noise


def test_a_hidden_pixel_takes_the_average_around_it_weighted_with_alpha():
    colours = np.array([[[10, 0, 0], [255, 255, 255], [40, 0, 0]]], np.uint8)
    alpha = np.array([[200, 0, 100]], np.uint8)
    assert bleed_colours(colours, alpha).tolist() == [[[10, 0, 0], [20, 0, 0], [40, 0, 0]]]


def test_the_smallest_square_that_holds_something_counts():
    # from pixel 0 on: 1 sees pixel 0 alone; 2 and 3 see it at radius 2 and 4, where 3 sees pixel 7 too
    colours = np.zeros((1, 8, 3), np.uint8)
    colours[0, 0], colours[0, 7] = 100, 200
    alpha = np.array([[255, 0, 0, 0, 0, 0, 0, 255]], np.uint8)
    assert bleed_colours(colours, alpha)[0, :, 0].tolist() == [100, 100, 100, 150, 150, 200, 200, 200]


def test_far_from_what_is_seen_stands_its_average():
    colours = np.zeros((1, 100, 3), np.uint8)
    colours[0, 0], colours[0, 1] = 100, 200
    alpha = np.zeros((1, 100), np.uint8)
    alpha[0, :2] = 255
    assert bleed_colours(colours, alpha)[0, [2, 33, 34, 99], 0].tolist() == [200, 200, 150, 150]


@pytest.mark.parametrize("alpha", [0, 1, 255])
def test_nothing_to_bleed_changes_nothing(alpha):
    colours = noise(5, 6, 3)
    assert np.array_equal(bleed_colours(colours, np.full((5, 6), alpha, np.uint8)), colours)


def test_tiles_do_not_show(monkeypatch):
    colours, alpha = noise(90, 20, 3), np.where(noise(90, 20, seed=1) > 250, noise(90, 20, seed=2), 0)
    whole = bleed_colours(colours, alpha)
    monkeypatch.setattr("taylorir.images.transparency._TILE", 7)
    assert np.array_equal(bleed_colours(colours, alpha), whole)
    assert np.array_equal(whole[alpha > 0], colours[alpha > 0])


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (0, 255, 0)], ids=str)
def test_a_cut_out_has_no_fringe(tmp_path, hidden):
    pixels = np.full((32, 32, 4), (*hidden, 0), np.uint8)
    rows, columns = np.mgrid[:32, :32] - 15.5
    pixels[np.hypot(rows, columns) < 10] = (200, 60, 20, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    upscale_file("bicubic", tmp_path / "x.png", tmp_path / "y.png", upscale=2)
    result = open_picture(tmp_path / "y.png").pixels
    seen = result[..., 3] > 0
    assert 0 < seen.sum() < seen.size
    assert (result[seen][:, :3] == (200, 60, 20)).all()
