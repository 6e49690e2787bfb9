"""Degradations: units, seeds, and errors. Expected values are worked out by hand."""

import numpy as np
import pytest

from taylorir.images.degradations import DEGRADATIONS, add_noise, blur, degrade, jpeg
from taylorir.images.pixels import to_grey
from taylorir.images.resize import imresize
from taylorir.training.config import TrainConfig
from taylorir.training.crops import PatchPool


@pytest.fixture
def photo() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:66]
    texture = np.random.default_rng(0).integers(0, 30, (48, 66, 3))
    return (np.stack([x * 3, y * 4, x + y], axis=-1) + texture).astype(np.uint8)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("scale", [2, 3])
def test_each_named_degradation_gives_an_lr_image(photo, name, scale):
    lr = degrade(photo, scale, name)
    assert lr.shape == (48 // scale, 66 // scale, 3)
    assert lr.dtype == np.uint8
    assert np.array_equal(lr, degrade(photo, scale, name)), "the same seed gives the same image"
    assert name == "none" or not np.array_equal(lr, degrade(photo, scale, "none"))


def test_none_is_matlab_bicubic(photo):
    assert np.array_equal(degrade(photo, 2, "none"), imresize(photo, 1 / 2))


@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_noise_has_the_standard_deviation_that_its_name_says(sigma):
    grey = np.full((256, 256, 3), 128, np.uint8)
    noise = add_noise(grey, sigma, seed=1).astype(float) - 128
    assert abs(noise.mean()) < 4 * sigma / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(np.hypot(sigma, 1 / np.sqrt(12)), rel=0.01)


def test_noise_depends_on_the_seed_only(photo):
    first = degrade(photo, 2, "noise15", seed=3)
    np.random.standard_normal(7)
    assert np.array_equal(first, degrade(photo, 2, "noise15", seed=3))
    assert not np.array_equal(first, degrade(photo, 2, "noise15", seed=4))


def test_jpeg_loses_more_at_lower_quality(photo):
    errors = [np.abs(jpeg(photo, q).astype(int) - photo).mean() for q in (90, 60, 30)]
    assert errors[0] < errors[1] < errors[2]


def test_blur_of_a_line_has_the_variance_that_its_name_says():
    line = np.zeros((9, 41, 3), np.uint8)
    line[:, 20] = 255
    row = blur(line, 1.6)[4, :, 0].astype(float)
    x = np.arange(41) - 20
    assert (row * x).sum() == 0
    assert (row * x**2).sum() / row.sum() == pytest.approx(1.6**2, rel=0.05)


def test_box_kernel_averages(photo):
    blocks = photo[:2, :2].reshape(4, 3).mean(0)
    two_roundings = 1.0  # Pillow rounds to 8 bits after each of the two passes
    assert np.abs(degrade(photo, 2, "kernel_box")[0, 0] - blocks).max() <= two_roundings


def test_steps_apply_from_left_to_right(photo):
    joined = degrade(photo, 2, "blur0.8+jpeg60")
    assert np.array_equal(joined, jpeg(blur(imresize(photo, 1 / 2), 0.8), 60))


@pytest.mark.parametrize(
    "name, message",
    [
        ("fog", "degradation 'fog' is not known"),
        ("noise", "degradation 'noise' is not known"),
        ("jpeg0", "quality must be an integer of 1..95, not 0"),
        ("jpeg96", "quality must be an integer of 1..95, not 96"),
        ("jpeg60.5", "quality must be an integer of 1..95, not 60.5"),
        ("blur0", "sigma must be positive"),
        ("noise5+kernel_box", "degradation 'kernel_box' is not known"),
    ],
)
def test_a_wrong_name_is_an_error_that_says_what_is_right(photo, name, message):
    with pytest.raises(ValueError, match=message):
        degrade(photo, 2, name)


def test_a_training_run_refuses_an_unknown_name():
    assert TrainConfig(degradation="blur0.8+noise5+jpeg60").degradation == "blur0.8+noise5+jpeg60"
    with pytest.raises(ValueError, match="degradation 'fog' is not known"):
        TrainConfig(degradation="fog")


def test_training_crops_are_degraded_and_each_image_has_noise_of_its_own(photo):
    pool = PatchPool([photo, photo], ["a", "b"], upscale=2, crop_size=24, degradation="noise15")
    lr, hr = pool.crops(np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    for crop, seed in zip(lr, (-1, -2), strict=True):
        expected = degrade(photo, 2, "noise15", seed=seed)[:24, :24].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(crop, expected, atol=1e-6)
    assert not np.array_equal(lr[0], lr[1]) and np.array_equal(hr[0], hr[1])
    np.testing.assert_allclose(hr[0], photo[:48, :48].transpose(2, 0, 1) / 255, atol=1e-6)


def test_a_size_that_does_not_divide_is_an_error(photo):
    with pytest.raises(ValueError, match="multiples of 5, not 48x66"):
        degrade(photo, 5, "none")


def test_negative_noise_is_an_error(photo):
    with pytest.raises(ValueError, match="at least 0 grey levels"):
        add_noise(photo, -1)


@pytest.mark.parametrize("name", ["noise25", "jpeg10", "blur1.2", "kernel_box+jpeg40"])
def test_a_grey_image_stays_one_channel(photo, name):
    grey = to_grey(photo)
    degraded = degrade(grey, 2, name)
    assert degraded.shape == (24, 33, 1) and degraded.dtype == np.uint8
    if name == "blur1.2":  # what acts on each channel alone gives of three equal ones what it gives of one
        assert np.array_equal(degrade(np.repeat(grey, 3, axis=2), 2, name), np.repeat(degraded, 3, axis=2))


def test_at_scale_one_the_degradation_acts_on_the_image_itself(photo):
    assert np.array_equal(degrade(photo, 1, "none"), photo)
    assert np.array_equal(degrade(photo, 1, "jpeg10"), jpeg(photo, 10))
