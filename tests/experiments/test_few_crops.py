"""Networks that train on few crops."""

import numpy as np

from taylorir.experiments.few_crops import SIDE, few_crops, few_crops_rows


def test_crops_are_parts_of_the_training_images_and_drawn_by_the_seed():
    crops = few_crops(3, seed=0)
    assert all(crop.image.shape == (SIDE, SIDE, 3) for crop in crops)
    assert np.array_equal(crops[0].image, few_crops(1, seed=0)[0].image)
    assert not np.array_equal(crops[0].image, few_crops(1, seed=1)[0].image)


def test_a_network_learns_its_crop_and_only_that():
    rows = few_crops_rows([1], [0, 8], steps=120, seeds=[0])
    assert rows.patch_size.tolist() == [0, 8] and rows.crops.tolist() == [1, 1]
    assert rows.parameters.is_monotonic_increasing
    assert (rows.fitted > rows.unseen).all()
