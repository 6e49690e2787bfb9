"""The gallery's rule, worked out by hand on pictures with known errors, and its slider."""

import numpy as np
import pandas as pd
import pytest

from taylorir.datasets.sets import NamedImage, make_pair, sample_split
from taylorir.experiments.gallery import (
    crop_panels,
    judge_crops,
    over_seeds,
    pick_both_ways,
    rank_crops,
    upscaled_crop,
)
from taylorir.experiments.growing import enlarge
from taylorir.images.metrics import psnr
from taylorir.networks.weights import default_model, load_network
from taylorir.report.gallery import Slider, plot_crop

GREY = np.full((40, 56, 3), 100, np.uint8)


def spoilt(picture: np.ndarray, levels: int, rows: slice, columns: slice) -> np.ndarray:
    copy = picture.copy()
    copy[rows, columns] += np.uint8(levels)
    return copy


@pytest.fixture
def ranked():
    everywhere = (slice(None), slice(None))
    hr = {"a": GREY, "b": GREY}
    first = {"a": spoilt(GREY, 10, *everywhere), "b": spoilt(GREY, 10, *everywhere)}
    second = {"a": spoilt(GREY, 5, *everywhere), "b": spoilt(GREY, 20, *everywhere)}
    return rank_crops(hr, first, second, size=16, border=4)


def test_gain_is_the_difference_of_psnr(ranked):
    six_db = 20 * np.log10(2)
    assert ranked.groupby("image")["gain"].agg(["min", "max"]).loc["a"].tolist() == pytest.approx(
        [six_db] * 2
    )
    assert ranked.groupby("image")["gain"].agg(["min", "max"]).loc["b"].tolist() == pytest.approx(
        [-six_db] * 2
    )
    luma_error = 10 * (65.481 + 128.553 + 24.966) / 255
    assert ranked["psnr_first"].tolist() == pytest.approx([20 * np.log10(255 / luma_error)] * len(ranked))


def test_grid_covers_the_shaved_image_in_half_steps(ranked):
    a = ranked[ranked["image"] == "a"]
    assert sorted(set(a["top"])) == [4, 12, 20]
    assert sorted(set(a["left"])) == [4, 12, 20, 28, 36]
    assert len(a) == 15


def test_both_ways_takes_one_crop_an_image_and_direction(ranked):
    picked = pick_both_ways(ranked, count=1)
    assert picked["image"].tolist() == ["a", "b"]
    assert (picked["gain"] > 0).tolist() == [True, False]


def test_crops_are_ranked_by_their_mean_over_seeds():
    def seed(*gains: float) -> pd.DataFrame:
        return pd.DataFrame({"image": [*"abc"], "top": 0, "left": 0, "size": 8, "gain": gains})

    found = over_seeds([seed(0.1, 0.4, 0.9), seed(0.3, -0.2, 0.9).iloc[:2]])  # the third has one seed
    assert found.image.tolist() == ["a", "b"] and found.gain.tolist() == pytest.approx([0.2, 0.1])
    assert found.agree.tolist() == [True, False] and found.gain_1.tolist() == [0.3, -0.2]


def test_the_gain_over_crops_is_judged_over_images_and_seeds_by_hand():
    places = [(image, top) for image in "abcde" for top in (0, 4)]
    one = pd.DataFrame(places, columns=["image", "top"]).assign(left=0, size=8)
    gains = np.repeat([0.5, 0.6, 0.7, 0.8, 0.9], 2) + np.tile([-0.05, 0.05], 5)  # two crops an image
    ranked = over_seeds([one.assign(gain=gains + shift) for shift in (-0.01, 0.0, 0.01)])
    found = judge_crops(ranked, planned=3, above_floor=True)
    assert (found.images, found.seeds, found.verdict) == (5, 3, "better")
    assert found.difference == pytest.approx(0.7)
    # images' means spread by sqrt(0.025), seeds' by 0.01
    assert found.error == pytest.approx(np.sqrt(0.025 / 5 + 0.0001 / 3))
    assert judge_crops(ranked, planned=4, above_floor=True).verdict == "3 of 4 seeds: no verdict"
    assert judge_crops(ranked, planned=3, above_floor=False).verdict == "below the floor: not judged"


def test_crops_without_error_are_left_out():
    half = {"a": spoilt(GREY, 10, slice(None), slice(28, None))}
    ranked = rank_crops({"a": GREY}, half, half, size=16, border=4)
    assert ranked["left"].min() == 20, "crops that end before column 28 have no error"
    with pytest.raises(ValueError, match="no image holds a crop of 16x16"):
        rank_crops({"a": GREY}, {"a": GREY}, {"a": GREY}, size=16)


def test_names_must_agree():
    with pytest.raises(ValueError, match=r"the images differ: hr \['a'\], first \['b'\]"):
        rank_crops({"a": GREY}, {"b": GREY}, {"a": GREY})


def test_panels_hold_the_crop_its_error_and_psnr():
    lr = np.full((20, 28, 3), 7, np.uint8)
    crop = {"top": 8, "left": 12, "size": 16}
    panels = crop_panels({"LR": lr, "x": spoilt(GREY, 10, slice(None), slice(None)), "HR": GREY}, crop)
    assert panels["LR"].picture.shape == (16, 16, 3) and panels["LR"].psnr_y is None
    assert panels["HR"].error is None
    luma_error = 10 * (65.481 + 128.553 + 24.966) / 255
    assert panels["x"].error == pytest.approx(np.full((16, 16), luma_error))
    assert panels["x"].psnr_y == pytest.approx(20 * np.log10(255 / luma_error))
    titles = [axes.get_title(loc="center") for axes in plot_crop(panels).axes]
    assert [title for title in titles if title] == ["LR", f"x\n{panels['x'].psnr_y:.2f} dB", "HR"]
    with pytest.raises(ValueError, match="pictures have no 'HR': LR"):
        crop_panels({"LR": lr}, crop)


def test_the_picture_of_the_readme_is_the_crop_of_median_gain():
    image = NamedImage("cat", sample_split()[1][1].image[100:180, 150:246])
    panels = upscaled_crop([image], 2, size=32)
    titles = ["your picture", "bicubic", "Lanczos", "taylorir upscale", "the truth"]
    assert [title.split(",")[0] for title in panels] == titles
    assert all(panel.shape == (32, 32, 3) for panel in panels.values())
    before, *results, truth = panels.values()
    assert np.array_equal(before[::2, ::2].repeat(2, 0).repeat(2, 1), before)
    assert [*panels][1:4] == [
        f"{title}, {psnr(result, truth):.1f} dB" for title, result in zip(titles[1:4], results, strict=True)
    ]
    lr, hr = make_pair(image.image, 2)
    ours, lanczos = (enlarge(model, lr, 2) for model in (load_network(default_model(2)), "lanczos"))
    ((top, left),) = (
        (y, x) for y in range(49) for x in range(65) if np.array_equal(hr[y : y + 32, x : x + 32], truth)
    )
    gains = {
        (y, x): psnr(ours[y : y + 32, x : x + 32], hr[y : y + 32, x : x + 32])
        - psnr(lanczos[y : y + 32, x : x + 32], hr[y : y + 32, x : x + 32])
        for y in range(2, 47, 16)
        for x in range(2, 63, 16)
    }
    assert gains[top, left] == sorted(gains.values(), reverse=True)[len(gains) // 2]


def test_slider_is_self_contained_and_reachable_by_keyboard():
    markup = Slider(GREY, GREY, labels=("bicubic", "A & B"), alt='a "grey" field')._repr_html_()
    assert "http" not in markup
    assert markup.count("data:image/webp;base64,") == 2
    assert '<input type="range"' in markup and "aria-label=" in markup
    assert "a &quot;grey&quot; field (A &amp; B)" in markup
    with pytest.raises(ValueError, match=r"differ in shape: \[40, 56, 3\] and \[20, 56, 3\]"):
        Slider(GREY, GREY[:20], labels=("a", "b"), alt="")
