"""Training on other tasks than super-resolution: grey images, degraded ones of the size of the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from taylorir.datasets.sets import NamedImage
from taylorir.images.degradations import degrade
from taylorir.images.metrics import psnr
from taylorir.images.pixels import to_grey
from taylorir.networks.variants import build_model
from taylorir.training.config import TrainConfig
from taylorir.training.crops import HeldOut, PatchPool
from taylorir.training.loop import train
from tests.pictures import noise

MODEL = build_model("swinir_denoise_gray", embed_dim=12, depths=(2,), num_heads=2).config
CONFIG = TrainConfig(
    model=MODEL, degradation="noise25", crop_size=8, batch_size=2, num_iters=4, log_every=2, eval_every=4
)
IMAGES = [NamedImage(f"image{seed}", noise(33, 40, 3, seed=seed)) for seed in range(2)]


def test_a_grey_network_is_trained_and_held_out_on_grey():
    result = train(CONFIG, images=IMAGES, held_out=IMAGES[:1], progress=False)
    expected = HeldOut(IMAGES[:1], 1, degradation="noise25", grey=True)
    assert result.curve.psnr_y.iloc[-1] == expected.psnr(result.model)
    grey = to_grey(IMAGES[0].image)
    assert expected.bicubic() == psnr(degrade(grey, 1, "noise25"), grey)


def test_crops_of_restoration_lie_at_the_same_place():
    grey = [to_grey(image.image) for image in IMAGES]
    pool = PatchPool(grey, ["a", "b"], upscale=1, crop_size=8, degradation="jpeg10")
    lr, hr = pool.crops(np.array([[1, 3, 5, 0]]))
    degraded = degrade(grey[1], 1, "jpeg10")
    for crop, image in ((lr, degraded), (hr, grey[1])):
        assert torch.equal(crop[0, 0], torch.from_numpy(image[3:11, 5:13, 0].copy()).float() / 255)


def test_a_network_that_enlarges_nothing_needs_something_to_undo():
    with pytest.raises(ValueError, match="degradation must be given where the network enlarges nothing"):
        replace(CONFIG, degradation="none")
