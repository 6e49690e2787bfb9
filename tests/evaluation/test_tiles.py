"""Tiles are no larger than their number needs."""

import pytest

from taylorir.evaluation.tiles import plan_axis


@pytest.mark.parametrize(
    ("length", "tile", "size", "starts"),
    [
        (1008, 816, 528, (0, 480)),  # two tiles that share a window of 48: (1008 + 48) / 2
        (4032, 816, 720, (0, 624, 1296, 1968, 2640, 3312)),  # (4032 + 5 x 48) / 6 = 712, up to 15 windows
        (528, 288, 288, (0, 240)),
        (96, 500, 96, (0,)),
    ],
)
def test_tiles_are_as_small_as_their_number_allows(length, tile, size, starts):
    axis = plan_axis(length, tile, 32, 48, 2)
    assert (axis.size, axis.starts) == (size, starts)
    assert all(len(weights) == 2 * size for weights in axis.weights)
