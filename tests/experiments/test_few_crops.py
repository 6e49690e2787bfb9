"""Networks that train on few crops."""

import numpy as np
import pandas as pd
import pytest

from taylorir.experiments import few_crops as module, gains_over_floor
from taylorir.experiments.few_crops import SIDE, few_crops, few_crops_rows


def test_crops_are_parts_of_the_training_images_and_drawn_by_the_seed():
    crops = few_crops(3, seed=0)
    assert all(crop.image.shape == (SIDE, SIDE, 3) for crop in crops)
    assert np.array_equal(crops[0].image, few_crops(1, seed=0)[0].image)
    assert not np.array_equal(crops[0].image, few_crops(1, seed=1)[0].image)


def test_each_network_trains_on_the_crops_alone_and_in_one_window(monkeypatch):
    seen = []

    def watched(config, *, images, train=module.train, **rest):
        seen.append((config, images))
        return train(config, images=images, **rest)

    monkeypatch.setattr(module, "train", watched)
    rows = few_crops_rows([2], [0, 8], steps=3, seeds=[1])
    assert rows[["crops", "patch_size", "steps", "seed"]].values.tolist() == [[2, 0, 3, 1], [2, 8, 3, 1]]
    for config, images in seen:
        assert [image.image.tolist() for image in images] == [c.image.tolist() for c in few_crops(2, seed=1)]
        assert (config.num_iters, config.seed) == (3, 1)
    without, with_patches = (config.model for config, _ in seen)
    assert without.depths == () and without.embed_dim == with_patches.embed_dim
    assert with_patches.patch_size * with_patches.window_size * 2 == SIDE


def test_gains_are_taken_at_equal_crops_and_seed():
    columns = ["crops", "seed", "patch_size", "fitted", "unseen"]
    rows = pd.DataFrame(
        [(1, 0, 0, 30.0, 20.0), (1, 1, 0, 31.0, 22.0), (1, 1, 2, 33.0, 21.0), (1, 0, 2, 30.5, 19.0)],
        columns=columns,
    )
    gains = gains_over_floor(rows)[columns].values.tolist()
    assert gains == [pytest.approx([1, 1, 2, 2, -1]), pytest.approx([1, 0, 2, 0.5, -1])]
