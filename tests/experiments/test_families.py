"""Memory of the families of the field: committed rows are what is counted, and N x N scores are what goes."""

from __future__ import annotations

import pytest

from taylorir.cost.network_flops import flops_of
from taylorir.cost.network_memory import memory_of
from taylorir.experiments.families import FAMILIES, LR_SIZE, SIDES, pair, time_rows
from taylorir.rows.committed import read_rows
from taylorir.rows.measured import PROVENANCE_COLUMNS

MIB = 2**20


@pytest.fixture(scope="module")
def rows():
    return read_rows("family_memory.csv").set_index(["mode", "family", "window_size", "method"])


def test_each_family_has_its_rows_at_each_window(rows):
    """Softmax where its class takes the window, and converted at all."""
    assert set(rows.index) == {
        (mode, family, window, method)
        for mode in ("infer", "train")
        for family, about in FAMILIES.items()
        for window in SIDES
        for method in ("softmax", "taylor")
        if method == "taylor" or window in about.sides
    }


@pytest.mark.parametrize("mode, most", [("infer", 1 / 5), ("train", 1 / 4)])
def test_a_converted_network_holds_no_scores_of_a_window(rows, mode, most):
    peaks = rows["peak_memory_mib"].xs(mode)
    scores = 4 * 6 * (48 * 48) ** 2 * 4 / MIB  # of SwinIR: four windows, six heads, float32
    assert peaks["SwinIR", 48, "softmax"] > 2 * scores  # and their softmax
    assert peaks["SwinIR", 48, "taylor"] < scores / 2
    large = peaks.xs(48, level="window_size").unstack().dropna()
    assert (large["taylor"] < large["softmax"] * most).all()


@pytest.mark.parametrize("family", ["SwinIR", "DAT"])
def test_the_rows_are_what_is_counted(rows, family):
    pytest.importorskip("spandrel")
    for method, model in pair(family, 16).items():
        row = rows.loc["infer", family, 16, method]
        assert memory_of(model, LR_SIZE, "infer").total / MIB == pytest.approx(
            row["peak_memory_mib"], rel=0.02
        )
        assert flops_of(model, LR_SIZE) / 2e9 == pytest.approx(row["gmacs"], abs=1e-3)


def test_a_family_whose_class_takes_no_other_window_is_converted_to_it():
    pytest.importorskip("spandrel")
    assert list(pair("SCUNet", 8)) == ["softmax", "taylor"]
    (taylor,) = pair("SCUNet", 16).values()
    windows = {module.window_size for module in taylor.modules() if hasattr(module, "temperature")}
    assert windows == {16}


def test_softmax_and_converted_are_timed_in_turns_with_the_load_beside_them():
    pytest.importorskip("spandrel")
    found = time_rows(["OmniSR"], lr_size=48, repeats=1)
    assert found[["window_size", "method"]].values.tolist() == [
        [side, method] for side in SIDES for method in ("softmax", "taylor")
    ]
    assert (found["cpu_ms"] > 0).all() and (found["repeats"] == 1).all()
    assert set(PROVENANCE_COLUMNS) | {"load", "priority"} <= set(found)
