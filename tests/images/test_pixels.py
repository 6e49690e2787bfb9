"""pixels: luma, crop, padding and tensors by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taylorir.images.pixels import (
    centre_crop,
    mod_crop,
    pad_to_multiple,
    rgb_to_y,
    to_grey,
    to_image,
    to_tensor,
)
from tests.pictures import noise


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert rgb_to_y(colours)[0] == pytest.approx([16.0, 235.0, 81.481, 144.553, 40.966], abs=1e-12)
    assert rgb_to_y(torch.from_numpy(colours).permute(2, 0, 1))[0].tolist() == pytest.approx(
        [16.0, 235.0, 81.481, 144.553, 40.966], abs=1e-12
    )


def test_grey_of_known_colours_is_rounded_luma_in_full_swing():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7], [255, 255, 255]]], dtype=np.uint8)
    # 0.299, 0.587, 0.114 of 255 are 76.245, 149.685, 29.07
    assert to_grey(colours).tolist() == [[[76], [150], [29], [7], [255]]]
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(to_grey(levels), levels[:, :, :1])


def test_mod_crop_cuts_bottom_and_right():
    image = noise(7, 11, 3)
    assert np.array_equal(mod_crop(image, 3), image[:6, :9])
    assert mod_crop(image[:6, :9], 3).shape == (6, 9, 3)
    with pytest.raises(ValueError, match="2x7 pixels cannot be cropped"):
        mod_crop(image[:, :2], 3)


def test_the_middle_of_an_image():
    image = noise(7, 11, 3)
    assert np.array_equal(centre_crop(image, 4), image[1:5, 3:7])
    assert np.array_equal(centre_crop(image, 9), image[:, 1:10])


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("reflect", [1, 2, 3], [1, 2, 3, 2]),
        ("reflect", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("reflect", [1, 2], [1, 2, 1, 2]),
        ("reflect", [1], [1, 1, 1, 1]),
        ("flip", [1, 2, 3], [1, 2, 3, 3]),
        ("flip", [1, 2, 3, 4], [1, 2, 3, 4, 4, 3, 2, 1]),
        ("flip", [1], [1, 1, 1, 1]),
    ],
)
def test_padding_by_hand(mode, values, expected):
    row = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    assert pad_to_multiple(row.expand(1, 1, 4, -1), 4, mode)[0, 0, 0].tolist() == expected
    assert pad_to_multiple(row.mT.expand(1, 1, -1, 4), 4, mode)[0, 0, :, 0].tolist() == expected


def test_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="reflect, flip"):
        pad_to_multiple(torch.zeros(1, 3, 4, 4), 4, "wrap")


def test_tensor_and_back():
    image = noise(5, 7, 3)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 5, 7) and tensor[0, 1, 2, 3].item() == pytest.approx(image[2, 3, 1] / 255)
    assert np.array_equal(to_image(tensor), image)
    assert to_image(torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_picture_is_made_of_what_is_not_finite(value, dtype):
    tensor = torch.zeros(1, 3, 4, 5, dtype=dtype)
    tensor[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"not finite \(NaN or infinity\)"):
        to_image(tensor)
