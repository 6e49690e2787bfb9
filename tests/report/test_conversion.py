"""The ladder is right whatever rows are there, and forecasts only where points allow it."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pandas as pd
import pytest

from taylorir.report.conversion import (
    LEAST_POINTS,
    after_training,
    against_control,
    both_trained,
    by_window,
    forecast,
    ladder,
    law,
    one_by_one,
    plot_choices,
    plot_ladder,
    plot_rungs,
    survey_table,
    window_headings,
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
        "calibrated, 20 steps",
        "released network trained on, 20 steps",
    ]


def marks(losses: dict[int, float], beginning: float = 0.8) -> pd.DataFrame:
    """Rungs of a network that begins 0.8 dB below the released one."""
    rows = [("dat_light_x2", "Set5", "a", 39.0, 0.9), ("centred_best", "Set5", "a", 39.0 - beginning, 0.9)]
    rows += [(f"calibrated_{step}", "Set5", "a", 39.0 - lost, 0.9) for step, lost in losses.items()]
    runs = [("centred_best", 5.0, 0, 0.0)] + [(f"calibrated_{n}", 5.0, n, 0.8 * n) for n in losses]
    return ladder(pd.DataFrame(rows, columns=ROWS.columns), pd.DataFrame(runs, columns=RUNS.columns), 100)


def test_a_set_that_the_original_was_not_measured_on_waits():
    more = ROWS.iloc[[2]].assign(set="Urban100")
    pd.testing.assert_frame_equal(ladder(pd.concat([ROWS, more]), RUNS, 10), ladder(ROWS, RUNS, 10))


def test_a_law_that_holds_is_found_without_doubt():
    """0.8 dB (1 + n / 100)^-1 is 0.4 after 100 steps and 0.08 after 900."""
    found = law(marks({100: 0.4, 300: 0.2, 700: 0.1}), "Set5")
    assert (np.exp(found.log_scale), found.power) == (pytest.approx(100), pytest.approx(1))
    assert (found.beginning, found.marks) == (pytest.approx(0.8), 3)
    assert found.lost(900) == pytest.approx(0.08)
    assert found.bounds(900) == (pytest.approx(0.08), pytest.approx(0.08))
    assert forecast(marks({100: 0.4, 300: 0.2, 700: 0.1}), "Set5", 700) == (
        "all 700 steps that were planned are done, so nothing is left to forecast"
    )
    assert forecast(marks({100: 0.4, 300: 0.2, 700: 0.1}), "Set5", 900) == (
        "0.08 dB below the released network after 900 steps, between 0.08 and 0.08 at 95 % if the law holds "
        "(3 marks)"
    )


def test_marks_that_scatter_leave_doubt_that_grows_with_the_steps():
    found = law(marks({100: 0.41, 300: 0.195, 700: 0.102, 1500: 0.049}), "Set5")
    spreads = [np.log(largest / least) for least, largest in map(found.bounds, (0, 700, 90_000))]
    assert spreads[0] == pytest.approx(0) and 0.01 < spreads[1] < spreads[2]
    least, largest = found.bounds(np.array([100.0, 900.0]))
    assert (least < found.lost(np.array([100.0, 900.0]))).all() and (largest[1] < 0.8)


def test_doubt_is_that_of_least_squares():
    """Against the derivatives and the scatter taken by hand."""
    steps, losses = np.array([100, 300, 700, 1500]), np.array([0.41, 0.195, 0.102, 0.049])
    found = law(marks(dict(zip(steps.tolist(), losses.tolist(), strict=True))), "Set5")

    def slopes(n):
        return np.array(
            [found.power * n / (n + np.exp(found.log_scale)), -np.log1p(n / np.exp(found.log_scale))]
        )

    design = slopes(steps).T
    residual = np.log(losses) - np.log(found.lost(steps))
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual / 2)  # of four marks, two numbers
    spread = 4.3027 * np.sqrt(slopes(900) @ covariance @ slopes(900))  # Student's t, two degrees of freedom
    assert np.log(found.bounds(900)[1] / found.lost(900)) == pytest.approx(spread, rel=1e-3)


@pytest.mark.parametrize("losses", [{}, {100: 0.4}, {100: 0.4, 200: 0.3}])
def test_few_marks_forecast_nothing(losses):
    assert law(marks(losses), "Set5") is None
    assert (
        forecast(marks(losses), "Set5", 9000)
        == f"too few marks to extrapolate ({len(losses)} of {LEAST_POINTS})"
    )


def test_marks_whose_doubt_is_wider_than_the_loss_forecast_nothing():
    scattered = marks({100: 0.35, 200: 0.34, 300: 0.2})
    assert law(scattered, "Set5").bounds(9000)[1] > 0.8
    assert forecast(scattered, "Set5", 9000).endswith("so open that it forecasts nothing yet")
    drawn = plot_ladder(scattered, set_name="Set5", last_step=9000).axes[1]
    assert drawn.get_ylim()[1] < 1


def test_losses_that_do_not_fall_forecast_nothing():
    assert law(marks({100: 0.4, 200: 0.9, 300: 1.5}), "Set5") is None
    assert law(marks({100: 0.4, 300: 0.2, 700: 0.1}), "Set14") is None


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
    left, right = plot_ladder(rungs, set_name="Set5", last_step=90).axes
    assert len(left.get_yticks()) == (rungs["set"] == "Set5").sum()


@pytest.mark.parametrize("draw", [plot_rungs, functools.partial(plot_ladder, last_step=9000)])
def test_the_number_beside_a_rung_lies_on_no_other(draw):
    """Of a training that has been measured often, most marks lie close together."""
    rungs = marks({100 * n: 0.2 / n for n in range(1, 25)})
    figure = draw(rungs, set_name="Set5")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    numbers = [text.get_window_extent() for text in axes.texts]
    points = axes.transData.transform([text.xy for text in axes.texts])
    assert len(numbers) == (3 if draw is plot_rungs else 26)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(numbers, 2))
    assert not any(number.contains(*point) for number in numbers for point in points)
    assert all(number.x1 < axes.get_window_extent().x1 for number in numbers)


def test_the_law_is_drawn_once_there_is_one():
    for losses, lines in (({100: 0.4, 300: 0.2}, 2), ({100: 0.4, 300: 0.2, 700: 0.1}, 3)):
        _, right = plot_ladder(marks(losses), set_name="Set5", last_step=9000).axes
        assert len(right.lines) == lines
        assert right.lines[0].get_xdata().tolist() == [0, *losses]


def test_of_each_training_the_box_shows_the_last_mark():
    (axes,) = plot_rungs(ladder(ROWS, RUNS, transfer_steps=10), set_name="Set5").axes
    assert [label.get_text() for label in axes.get_yticklabels()][::-1] == [
        "as released",
        "swapped, temperature 1",
        "calibrated, 20 steps",
        "released network trained on, 20 steps",
    ]


def test_what_training_brought_back_is_said_of_the_last_mark_or_not_at_all():
    rungs = ladder(ROWS, RUNS.assign(cpu_seconds=[0, 60, 120, 130]), transfer_steps=10)
    assert after_training(rungs, "Set5") == "0.50 dB after 20 steps of calibration (2 CPU minutes)"
    assert after_training(rungs, "Set14") == "has not been trained on here yet"
    turned = rungs.assign(lost=rungs["lost"].where(rungs["steps"] != 20, 0.75))
    earlier = rungs[rungs["kind"] == "calibrated"].assign(steps=10, lost=0.5)
    assert after_training(pd.concat([turned, earlier]), "Set5") == (
        "0.75 dB after 20 steps of calibration (2 CPU minutes), least after 10, 0.50 dB"
    )
    elsewhere = rungs[rungs["kind"] == "calibrated"].assign(set="BSD100", lost=0.75)
    assert after_training(pd.concat([rungs, elsewhere]), "Set5") == (
        "0.50 dB after 20 steps of calibration (2 CPU minutes; 0.75 dB on BSD100)"
    )


def of_both(*marks: tuple[int, str, float, float]) -> pd.DataFrame:
    """Rungs of two trainings: at some steps on a set, PSNR of the control and of the converted network."""
    rows, runs = [ROWS[ROWS["run"] == "dat_light_x2"]], set()
    for steps, name, *values in marks:
        for kind, psnr_y in zip(("control", "calibrated"), values, strict=True):
            runs.add((f"{kind}_{steps}", 0.0, steps, 1.0))
            row = (f"{kind}_{steps}", name, "a", psnr_y, 0.9)
            rows.append(pd.DataFrame([row], columns=ROWS.columns))
    return ladder(pd.concat(rows), pd.DataFrame(sorted(runs), columns=RUNS.columns), transfer_steps=10)


def test_the_two_trainings_are_compared_where_most_sets_have_both():
    one = ladder(ROWS, RUNS, transfer_steps=10)
    assert against_control(one, "Set5") == (
        "after 20 steps each, the converted network is 0.50 dB below the released one, which has "
        "gained 0.00 dB itself"
    )
    rungs = of_both((20, "Set14", 34.5, 33.5), (20, "Set5", 37.75, 38.0), (30, "Set5", 40.0, 39.0))
    both = both_trained(rungs)
    assert both.to_dict("list") == {
        "steps": [20] * 3, "set": ["Set5", "Set14", "mean of sets"], "images": [2, 1, 3],
        "original": [38.5, 34.0, 36.25], "control": [37.75, 34.5, 36.125], "calibrated": [38.0, 33.5, 35.75],
        "difference": [0.25, -1.0, -0.375],
    }  # fmt: skip
    assert against_control(rungs, "Set5") == (
        "after 20 steps each, the converted network is 0.25 dB above the released one (0.38 dB below it on "
        "the mean of 2 sets, from 1.00 dB below on Set14 to 0.25 dB above on Set5), which has lost 0.75 dB "
        "itself"
    )
    later = of_both((20, "Set5", 37.75, 38.0), (30, "Set5", 40.0, 39.0))
    assert list(both_trained(later)["steps"]) == [30]


def test_where_no_mark_has_both_trainings_nothing_is_said():
    further = ladder(ROWS[ROWS["run"] != "control_20"], RUNS, transfer_steps=10)
    assert both_trained(further).empty
    assert against_control(further, "Set5") == "no mark of both trainings has been measured yet"


def test_families_stand_in_one_line_each():
    rows = [("B", 8, "softmax", 2.0), ("B", 8, "taylor", 1.0), ("A", 16, "taylor", 3.0)]
    wide = by_window(pd.DataFrame(rows, columns=["family", "window_size", "method", "mib"]), "mib")
    assert list(wide.columns) == ["family", "softmax_8", "taylor_8", "taylor_16"]
    assert list(wide["family"]) == ["B", "A"] and wide["taylor_16"].tolist()[1] == 3.0
    assert window_headings(wide) == {
        "family": "family", "softmax_8": "8: softmax", "taylor_8": "8: converted",
        "taylor_16": "16: converted",
    }  # fmt: skip


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
        "family": "A", "class": "Att", "kind": "window", "sites": 4, "tokens": "64 × 1,600",
        "width": "10 to 30", "crossover": "111 to 931", "added": "bias, mask", "converted": "yes",
    }  # fmt: skip
    assert second == {
        "family": "A", "class": "Ch", "kind": "channel", "sites": 1, "tokens": "60 × 60", "width": "99",
        "crossover": "", "added": "", "converted": "no: over channels",
    }  # fmt: skip
