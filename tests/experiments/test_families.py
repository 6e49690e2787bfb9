"""Memory of the families of the field: committed rows are what is counted, and N x N scores are what goes."""

from __future__ import annotations

import pytest

from taylorir.convert.conversion import taylorize
from taylorir.cost.network_memory import memory_of
from taylorir.experiments.families import FAMILIES, LR_SIZE, build
from taylorir.rows.committed import read_rows

MIB = 2**20


@pytest.fixture(scope="module")
def rows():
    found = read_rows("family_memory.csv")
    return found.set_index(["family", "window_size", "method"])["peak_memory_mib"]


def test_each_family_has_both_rows_at_each_of_its_windows(rows):
    assert set(rows.index) == {
        (family, window, method)
        for family, about in FAMILIES.items()
        for window in about.sides
        for method in ("softmax", "taylor")
    }


def test_a_converted_network_holds_no_scores_of_a_window(rows):
    scores = 4 * 6 * (48 * 48) ** 2 * 4 / MIB  # of SwinIR: four windows, six heads, float32
    assert rows["SwinIR", 48, "softmax"] > 2 * scores  # and their softmax
    assert rows["SwinIR", 48, "taylor"] < scores / 10
    large = rows.xs(48, level="window_size").unstack()
    assert (large["taylor"] < large["softmax"] / 5).all()


@pytest.mark.parametrize("family", ["SwinIR", "DAT"])
def test_the_rows_are_what_is_counted(rows, family):
    pytest.importorskip("spandrel")
    softmax = build(family, 16)
    for method, model in (("softmax", softmax), ("taylor", taylorize(softmax, centre_keys=True))):
        found = memory_of(model, LR_SIZE, "infer").total / MIB
        assert found == pytest.approx(rows[family, 16, method], rel=0.02)
