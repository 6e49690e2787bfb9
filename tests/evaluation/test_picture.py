"""A picture of any kind gives the same kind back: the same pixels as super_resolve, whatever carries them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import taylorir
from taylorir.evaluation.files import upscale_file
from taylorir.evaluation.picture import upscale
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.images.resize import imresize
from taylorir.networks.variants import build_model
from taylorir.networks.weights import default_model
from tests.pictures import noise


def twice(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, -2).repeat_interleave(2, -1)


class Darker(nn.Module):
    """Each pixel twice along each side, with three quarters of its red."""

    def forward(self, image):
        return twice(image * torch.tensor([0.75, 1, 1])[:, None, None])


def doubled(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def test_arrays_and_pil_images_keep_channels_and_dtype():
    rgb = noise(6, 9, 3)
    rgb[..., 0] = rgb[..., 0] // 4 * 4
    expected = doubled(rgb * np.array([3, 4, 4]) // 4).astype(np.uint8)
    assert np.array_equal(upscale(rgb, model=Darker()), expected)
    assert np.array_equal(np.array(upscale(Image.fromarray(rgb), model=Darker())), expected)
    deep = upscale(rgb.astype(np.uint16) * 256, model=Darker())
    assert deep.dtype == np.uint16 and np.array_equal(deep, expected.astype(np.uint16) * 256)


def test_grey_is_the_mean_of_what_the_network_returns_and_alpha_is_bicubic():
    grey = np.arange(4, 124, 4, dtype=np.uint8).reshape(5, 6)
    expected = doubled((grey.astype(int) // 4 * 11 + 1) // 3)  # (3/4 + 1 + 1) / 3, rounded
    assert np.array_equal(upscale(grey, model=Darker()), expected)
    alpha = noise(5, 6, 1) | 1  # where nothing is to be seen, colours change
    picture = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha[..., 0])])
    both = np.array(upscale(picture, model=Darker()))
    assert np.array_equal(both[..., 0], expected)
    assert np.array_equal(both[..., 1], imresize(alpha[..., 0], 2.0))


def test_tensors_keep_their_shape_dtype_and_values():
    batch = torch.rand(2, 3, 4, 5)
    sr = upscale(batch, model=Darker())
    red = torch.tensor([0.75, 1, 1])[:, None, None]
    torch.testing.assert_close(sr, twice(batch * red), atol=1.6e-5, rtol=0)
    half = upscale(batch[0].half(), model=Darker())
    assert half.dtype == torch.float16 and half.shape == (3, 8, 10)
    whole = (batch[0] * 255).to(torch.uint8)
    expected = super_resolve(Darker(), whole.permute(1, 2, 0).numpy(), upscale=2)
    assert np.array_equal(upscale(whole, model=Darker()).permute(1, 2, 0).numpy(), expected)


def test_palettes_turn_to_colours_and_paths_to_images(tmp_path):
    palette = Image.fromarray(noise(6, 6, 3)).quantize(4)
    sr = upscale(palette, model="bicubic")
    assert (sr.mode, sr.size) == ("RGB", (12, 12))
    for mode in ("L", "RGBA"):
        Image.fromarray(noise(6, 7, 3)).convert(mode).save(tmp_path / "a.png")
        sr = upscale(tmp_path / "a.png", 3, model="bicubic")
        assert (sr.mode, sr.size) == (mode, (21, 18))


def test_the_default_is_the_network_trained_here_for_the_factor():
    lr = noise(16, 16, 3)
    assert np.array_equal(taylorir.upscale(lr, 3), taylorir.upscale(lr, 3, model=default_model(3)))


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (None, TypeError),
        (np.zeros((4, 4, 5), np.uint8), ValueError),
        (np.zeros((4, 4, 3)), TypeError),
        (torch.full((3, 4, 4), 255.0), ValueError),
    ],
    ids=["none", "five channels", "float array", "tensor of 0..255"],
)
def test_what_is_no_picture_is_refused(picture, error):
    with pytest.raises(error):
        upscale(picture, model=Darker())


def grey_network(in_chans: int = 1) -> nn.Module:
    """Gives its input back, and is of one channel."""
    model = build_model("swinir_denoise_gray", embed_dim=12, depths=[2], num_heads=2, in_chans=in_chans)
    nn.init.zeros_(model.conv_last.weight)
    nn.init.zeros_(model.conv_last.bias)
    return model.eval()


def test_a_grey_network_takes_grey_pictures_alone(tmp_path):
    grey = noise(9, 11)
    assert np.array_equal(upscale(grey, 1, model=grey_network()), grey)
    both = np.dstack([grey, noise(9, 11, seed=1) | 1])
    assert np.array_equal(upscale(both, 1, model=grey_network()), both)
    for model in (grey_network(), grey_network(3)):
        Image.fromarray(grey).save(tmp_path / "grey.png")
        upscale_file(model, tmp_path / "grey.png", tmp_path / "out.png")
        assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), grey)
    with pytest.raises(ValueError, match="the network is for grey pictures, and this one has colours"):
        upscale(noise(9, 11, 3), 1, model=grey_network())
