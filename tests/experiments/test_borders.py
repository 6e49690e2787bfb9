"""Rows that compare padded with ragged borders."""

import dataclasses

import numpy as np
import pytest

from taylorir.datasets import NamedImage
from taylorir.evaluation import super_resolve
from taylorir.experiments import borders
from taylorir.networks import build_model
from tests.random_networks import stirred


@pytest.fixture
def network():
    return stirred(build_model("taylorswinir_tiny_x2", depths=(2,), window_size=4)).eval()


def test_a_row_an_image_and_border(network, monkeypatch):
    rng = np.random.default_rng(0)
    images = [
        NamedImage(name, rng.integers(0, 256, size, dtype=np.uint8))
        for name, size in (("whole", (32, 48, 3)), ("cut", (36, 44, 3)))
    ]
    monkeypatch.setattr(
        borders,
        "evaluate",
        lambda model, _, evaluate=borders.evaluate, **rest: evaluate(model, images, **rest),
    )
    before = network.config
    rows = borders.border_rows({"a": network}, ["Set"])
    assert network.config is before
    assert rows.border.tolist() == ["reflect", "reflect", "ragged", "ragged"]
    assert rows.made_up.tolist() == [0.0, round(20 * 24 / (18 * 22) - 1, 4), 0.0, 0.0]
    assert rows.psnr_y[0] == pytest.approx(rows.psnr_y[2], abs=1e-3)
    assert abs(rows.psnr_y[1] - rows.psnr_y[3]) > 1e-3


def test_a_picture_that_is_not_tiled_is_not_padded(network):
    network.config = dataclasses.replace(network.config, border="ragged")
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    lr = np.zeros((9, 14, 3), np.uint8)
    assert super_resolve(network, lr).shape == (18, 28, 3)
    network.config = dataclasses.replace(network.config, border="reflect")
    super_resolve(network, lr)
    assert sizes == [(9, 14), (12, 16)]
