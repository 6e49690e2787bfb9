"""Stages of the main pair: which are reached, which one counts, and pixels and minutes added up by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taylorir.experiments.budgets import SHOWN, STAGES, decisive, shown_pair, spent, stages_with_rows
from taylorir.experiments.protocol import find_run
from taylorir.rows import WEIGHTS_FOLDER, read_rows


def rows_of(*runs: str) -> pd.DataFrame:
    return pd.DataFrame({"run": list(runs)})


MINI = ("swinir_mini_x2_s0", "taylorswinir_mini_x2_s0", "linear_mini_x2_s0")
SHORT = tuple(f"{arm}_mid_x2_3k_s{seed}" for seed in (0, 1) for arm in ("linear", "swinir", "taylorswinir"))
MIDDLE = ("swinir_mid_x2_8k_s0", "taylorswinir_mid_x2_8k_s0", "linear_mid_x2_8k_s0")


def test_stages_are_in_order_and_name_runs_that_exist():
    assert [stage.name for stage in STAGES] == [
        "mini, 3,000 steps", "mid, 3,000 steps", "mid, 8,000 steps", "mid, 24,000 steps",
    ]  # fmt: skip
    for stage in STAGES:
        for name in (*stage.pair.reference, *stage.pair.other, *stage.floor):
            config = find_run(stage.size, name).config
            assert config.num_iters - config.decay_iters == stage.steps


def test_the_stage_that_counts_has_most_pairs_and_then_most_steps():
    assert [stage.name for stage in stages_with_rows(rows_of(*MINI, *SHORT[:4]))] == [
        "mini, 3,000 steps",
        "mid, 3,000 steps",
    ]
    assert stages_with_rows(rows_of(*SHORT[:2])) == []  # half a pair
    assert stages_with_rows(rows_of(*MIDDLE[:2])) == []  # no floor
    assert [s.steps for s in stages_with_rows(rows_of(*SHORT, *MIDDLE), "mid", least=2)] == [3000]
    assert decisive(rows_of(*SHORT, *MIDDLE)).steps == 3000
    assert decisive(rows_of(*SHORT[:3], *MIDDLE)).steps == 8000
    with pytest.raises(ValueError, match="no pair of size 'mid' has been measured"):
        decisive(rows_of(*MINI))


def test_what_was_spent_by_hand():
    columns = ["run", "parameters", "num_iters", "batch_size", "crop_size", "branched_from", "cpu_seconds"]
    runs = pd.DataFrame(
        [
            ("swinir_mid_x2_3k_s0_trunk", 9, 3000, 1, 48, np.nan, 60.0),
            ("swinir_mid_x2_8k_s0_trunk", 9, 8000, 1, 48, "swinir_mid_x2_3k_s0_trunk", 150.0),
            ("swinir_mid_x2_8k_s0", 9, 8800, 1, 96, "swinir_mid_x2_8k_s0_trunk", 240.0),
            ("taylorswinir_mid_x2_8k_s0", 7, 8800, 1, 96, np.nan, 120.0),
            ("swinir_mid_x2_8k_s1", 9, 8800, 1, 96, "swinir_mid_x2_8k_s1_trunk", 180.0),
            ("taylorswinir_mid_x2_8k_s1", 7, 8800, 1, 96, np.nan, 126.0),
        ],
        columns=columns,
    )
    rows = rows_of(*MIDDLE, *(f"{arm}_mid_x2_8k_s1" for arm in ("swinir", "taylorswinir")))
    found = spent(rows, runs, stages_with_rows(rows)).iloc[0].to_dict()
    pixels = 8000 * 48**2 + 800 * 96**2
    assert found == {
        "size": "mid", "steps": 8000, "seeds": 2, "planned": 6, "pixels": pixels, "parameters_swinir": 9,
        "parameters_taylorswinir": 7, "minutes_swinir": 3.0, "minutes_taylorswinir": 2.0,
    }  # fmt: skip


def test_the_networks_that_chapters_show_are_those_of_one_stage():
    assert shown_pair().reference == SHOWN.pair.reference and len(SHOWN.floor) == len(SHOWN.pair.other) == 6
    assert shown_pair(4).other == ("taylorswinir_mini_x4_s0",)
    with pytest.raises(ValueError, match="no pair of networks is trained for x8"):
        shown_pair(8)
    names = {*SHOWN.pair.reference, *SHOWN.pair.other, *SHOWN.floor}
    assert all((WEIGHTS_FOLDER / f"{name}.safetensors").is_file() for name in names)
    assert names <= {*read_rows(f"quality_{SHOWN.size}.csv").run}
    assert names <= {*read_rows("attribution.csv").network}
    assert all(names <= {*read_rows(file).model} for file in ("robustness.csv", "photographs.csv"))
