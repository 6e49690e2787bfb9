"""Tiles are no larger than their number needs, and what a process holds is read from the system."""

import pytest

from taylorir.evaluation.tiles import peak_resident_memory, plan_axis, resident_memory


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


def test_the_peak_is_at_least_what_is_held():
    assert peak_resident_memory() >= resident_memory() > 50 * 2**20
    before = peak_resident_memory()
    ballast = bytearray(b"x" * (before - resident_memory() + 2**27))
    assert peak_resident_memory() - before >= 2**26
    del ballast
    assert peak_resident_memory() - before >= 2**26
