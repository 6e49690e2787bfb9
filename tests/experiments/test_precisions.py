"""Rows that compare bfloat16 with float32."""

import numpy as np
import pytest

from taylorir.datasets import NamedImage
from taylorir.evaluation import super_resolve
from taylorir.experiments import precisions
from taylorir.images import imresize, psnr
from taylorir.networks import build_model
from tests.random_networks import stirred


def test_a_row_an_image_and_precision(monkeypatch):
    network = stirred(build_model("taylorswinir_tiny_x2", depths=(2,), window_size=4)).eval()
    rng = np.random.default_rng(0)
    images = [NamedImage(name, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for name in "ab"]
    passes = []

    def evaluate(model, dataset, evaluate=precisions.evaluate, **rest):
        passes.append((dataset, rest["precision"]))
        return evaluate(model, images, **rest)

    monkeypatch.setattr(precisions, "evaluate", evaluate)
    rows = precisions.precision_rows({"net": network}, ["Set"])
    assert passes == [("Set", "float32")] * 2 + [("Set", "bfloat16")] * 2  # the first of each warms up
    assert rows.image.tolist() == ["a", "b"] * 2
    assert rows["dtype"].tolist() == ["float32"] * 2 + ["bfloat16"] * 2
    assert (rows.seconds > 0).all()
    lr = imresize(images[0].image, 0.5)
    for row, precision in ((0, "float32"), (2, "bfloat16")):
        sr = super_resolve(network, lr, precision=precision)
        assert rows.psnr_y[row] == pytest.approx(psnr(sr, images[0].image, crop_border=2), abs=1e-4)
