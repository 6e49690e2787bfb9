"""The ladder is right whatever rows are there, and forecasts only where points allow it."""

from __future__ import annotations

import pandas as pd
import pytest

from taylorir.report.conversion import (
    LEAST_POINTS,
    after_training,
    forecast,
    gap_law,
    gaps,
    ladder,
    memory_by_window,
    one_by_one,
    plot_choices,
    plot_ladder,
    plot_rungs,
    survey_table,
)

ROWS = pd.DataFrame(
    [
        ("control_20", "Set5", "a", 39.5, 0.96), ("control_20", "Set5", "b", 37.5, 0.94),
        ("calibrated_20", "Set5", "a", 39.0, 0.9), ("calibrated_20", "Set5", "b", 37.0, 0.9),
        ("calibrated_10", "Set5", "a", 38.5, 0.9), ("calibrated_10", "Set5", "b", 36.5, 0.9),
        ("swapped", "Set5", "a", 38.0, 0.9), ("swapped", "Set5", "b", 36.0, 0.9),
        ("dat_light_x2", "Set5", "a", 39.0, 0.95), ("dat_light_x2", "Set5", "b", 38.0, 0.95),
        ("dat_light_x2", "Set14", "c", 34.0, 0.92),
        ("dat_light_x4", "Set5", "a", 33.0, 0.9),
    ],
    columns=["run", "set", "image", "psnr_y", "ssim_y"],
)  # fmt: skip
RUNS = pd.DataFrame(
    [("swapped", 1.0, 0, 0.0), ("calibrated_10", 4.0, 10, 8.0), ("calibrated_20", 4.0, 20, 18.0),
     ("control_20", 0.0, 20, 19.0)],
    columns=["run", "temperature", "steps", "cpu_seconds"],
)  # fmt: skip


def test_the_rungs_stand_in_their_order_with_their_losses():
    found = ladder(ROWS, RUNS, transfer_steps=10)
    columns = ["run", "set", "images", "psnr_y", "lost"]
    assert list(found[columns].itertuples(index=False, name=None)) == [
        ("dat_light_x2", "Set5", 2, 38.5, 0.0),
        ("dat_light_x2", "Set14", 1, 34.0, 0.0),
        ("swapped", "Set5", 2, 37.0, 1.5),
        ("calibrated_10", "Set5", 2, 37.5, 1.0),
        ("calibrated_20", "Set5", 2, 38.0, 0.5),
        ("control_20", "Set5", 2, 38.5, 0.0),
    ]  # fmt: skip
    assert list(found["label"])[2:] == [
        "swapped, temperature 1",
        "attention transfer, 10 steps",
        "and distillation, 20 steps in all",
        "released network trained on, 20 steps",
    ]


def curves(calibrated: dict[int, float], control: dict[int, float]) -> pd.DataFrame:
    rows = [("calibrated", step, db) for step, db in calibrated.items()]
    rows += [("control", step, db) for step, db in control.items()]
    return pd.DataFrame(rows, columns=["run", "step", "psnr_y"]).assign(cpu_seconds=1.0)


def test_a_law_through_gaps_that_halve_is_found_and_forecasts():
    steps = [100, 200, 400, 800]
    measured = curves({step: 38 - 100 / step for step in steps}, dict.fromkeys(steps, 38.0))
    law = gap_law(gaps(measured))
    assert (law.gap_at_one, law.power, law.points) == (pytest.approx(100), pytest.approx(1), 4)
    assert law.gap(1000) == pytest.approx(0.1)
    assert forecast(gaps(measured), 1000) == (
        "0.10 dB below the control after 1,000 steps (power law, 4 points)"
    )


@pytest.mark.parametrize("steps", [[], [100], [100, 200, 400]])
def test_few_points_forecast_nothing(steps):
    measured = curves({step: 37.0 for step in steps}, dict.fromkeys(steps, 38.0))
    assert gap_law(gaps(measured)) is None
    assert forecast(gaps(measured), 9000) == (
        f"too few points to extrapolate ({len(steps)} of {LEAST_POINTS})"
    )


def test_gaps_are_those_of_steps_at_which_both_were_measured():
    found = gaps(curves({100: 37.0, 200: 37.5, 300: float("nan")}, {100: 38.0, 300: 38.0}))
    assert found[["step", "calibrated", "control", "gap"]].values.tolist() == [[100, 37.0, 38.0, 1.0]]


CROPS = pd.DataFrame(
    [(0.0, True, 2, "none", 34.0), (1.0, True, 2, "all", 33.0), (1.0, False, 2, "all", 32.5),
     (4.0, True, 4, "all", 33.5), (1.0, True, 2, "1", 33.75), (1.0, True, 2, "0", 33.5)],
    columns=["temperature", "centre_keys", "order", "layers", "psnr_y"],
)  # fmt: skip


def test_each_layer_alone_loses_against_the_original():
    assert one_by_one(CROPS).values.tolist() == [[1, 0.5], [2, 0.25]]
    assert one_by_one(CROPS[CROPS["layers"] != "none"]).empty


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 2), slice(None)], ids=["none", "few", "all"])
def test_figures_are_drawn_of_whatever_rows_there_are(part):
    left, right = plot_choices(CROPS[part]).axes
    assert len(right.patches) == (2 if part == slice(None) else 0)
    rungs = ladder(ROWS[part], RUNS[part], transfer_steps=10)
    measured = curves({1: 1.0}, {1: 2.0}) if part == slice(None) else curves({}, {})
    left, right = plot_ladder(rungs, measured, set_name="Set5", last_step=90).axes
    assert len(left.get_yticks()) == (rungs["set"] == "Set5").sum()


def test_of_each_training_the_box_shows_the_last_mark():
    (axes,) = plot_rungs(ladder(ROWS, RUNS, transfer_steps=10), set_name="Set5").axes
    assert [label.get_text() for label in axes.get_yticklabels()][::-1] == [
        "as released",
        "swapped, temperature 1",
        "and distillation, 20 steps in all",
        "released network trained on, 20 steps",
    ]


def test_what_training_brought_back_is_said_of_the_last_mark_or_not_at_all():
    rungs = ladder(ROWS, RUNS.assign(cpu_seconds=[0, 60, 120, 130]), transfer_steps=10)
    assert after_training(rungs, "Set5") == "0.50 dB after 20 steps of calibration (2 CPU minutes)"
    assert after_training(rungs, "Set14") == "has not been trained on here yet"


def test_memory_stands_in_one_line_a_family():
    rows = [("B", 8, "softmax", 2.0), ("B", 8, "taylor", 1.0), ("A", 16, "softmax", 4.0)]
    columns = ["family", "window_size", "method", "peak_memory_mib"]
    wide = memory_by_window(pd.DataFrame([*rows, ("A", 16, "taylor", 3.0)], columns=columns))
    assert list(wide.columns) == ["family", "softmax_8", "taylor_8", "softmax_16", "taylor_16"]
    assert list(wide["family"]) == ["B", "A"] and wide["taylor_16"].tolist()[1] == 3.0


def test_the_survey_has_a_line_for_sites_that_differ_in_width_and_mask_alone():
    sites = pd.DataFrame(
        [("A", "Att", "window", 64, 1600, 10, True, False, 111, True, None, 3),
         ("A", "Att", "window", 64, 1600, 30, True, True, 931, True, "saves nothing", 1),
         ("A", "Ch", "channel", 60, 60, 99, False, False, 9901, False, "over channels", 1)],
        columns=["family", "class", "kind", "queries", "keys", "width", "bias", "mask", "crossover", "known",
                 "note", "sites"],
    )  # fmt: skip
    first, second = survey_table(sites).to_dict("records")
    assert first == {
        "family": "A", "class": "Att", "kind": "window", "sites": 4, "tokens": "64 x 1,600",
        "width": "10 to 30", "crossover": "111 to 931", "added": "bias, mask", "converted": "yes",
    }  # fmt: skip
    assert second == {
        "family": "A", "class": "Ch", "kind": "channel", "sites": 1, "tokens": "60 x 60", "width": "99",
        "crossover": "", "added": "", "converted": "no: over channels",
    }  # fmt: skip
