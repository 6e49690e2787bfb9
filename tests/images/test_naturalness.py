"""NIQE: its fit on distributions that are known, MATLAB's value, what it refuses."""

import numpy as np
import pytest
from scipy import stats

from taylorir.datasets.sets import load_images
from taylorir.images.degradations import add_noise, blur
from taylorir.images.naturalness import _fit, niqe
from taylorir.rows.committed import read_rows
from tests.pictures import noise


def quantiles(distribution) -> np.ndarray:
    return distribution.ppf((np.arange(10_000) + 0.5) / 10_000).reshape(1, 100, 100)


def test_the_fit_finds_the_distributions_that_it_knows():
    laplace, normal = quantiles(stats.laplace(scale=3)), quantiles(stats.norm(scale=3))
    # twice as wide to the right, with twice the mass there, so that the density has no step at zero
    left, right = (quantiles(stats.expon(scale=scale))[0] for scale in (3, 6))
    lopsided = np.stack([-left, right, right], axis=-1)[None]
    shape, left, right = np.concatenate([_fit(values) for values in (laplace, normal, lopsided)], axis=1)
    # a Laplace distribution is exp(-|x| / 3); a normal one exp(-(x / (3 sqrt 2))^2)
    assert shape == pytest.approx([1, 2, 1], abs=0.02)
    assert left == pytest.approx([3, 3 * 2**0.5, 3], rel=0.01)
    assert right == pytest.approx([3, 3 * 2**0.5, 6], rel=0.02)


def test_matlab_gives_the_same_for_baboon():
    rows = read_rows("photographs.csv")
    baboon = rows[(rows["image"] == "baboon") & (rows["model"] == "truth")]
    assert len(baboon) and baboon["niqe"].to_numpy() == pytest.approx(5.7296, abs=2e-4)


def test_noise_and_blur_are_less_natural_than_the_photograph():
    photo = load_images("samples_held_out")[0].image[:288, :288]
    clean = niqe(photo)
    assert niqe(add_noise(photo, 25.0)) > clean + 1 and niqe(blur(photo, 2.0)) > clean + 1


def test_what_fills_no_block_does_not_count_and_one_block_is_refused():
    photo = load_images("samples_held_out")[0].image[:192, :192]
    wider = np.concatenate([photo, noise(192, 95, 3)], axis=1)
    changed = np.where(np.arange(287)[:, None] < 192, wider, 255 - wider)
    assert niqe(wider) == pytest.approx(niqe(changed), abs=0.05)  # the window of the border sees 3 pixels
    with pytest.raises(ValueError, match="two blocks of 96x96 pixels, and the image has 191x95"):
        niqe(noise(95, 191, 3))
    with pytest.raises(ValueError, match="not of one grey level, and has 1"):
        niqe(np.concatenate([photo[:96, :96], np.full((96, 96, 3), 7, np.uint8)], axis=1))
