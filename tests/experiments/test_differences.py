"""Differences of quality: values computed by hand, and a verdict that is given only when it is earned."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from taylorir.experiments.differences import (
    beside_published,
    compare,
    image_differences,
    interval,
    seed_noise,
    set_means,
    with_rows,
)
from taylorir.experiments.protocol import COMPARISONS, Comparison, find_run
from taylorir.report import quality as report_quality, tables as report


def rows_of(runs: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"run": run, "set": "Set5", "image": f"i{i}", "upscale": 2, "psnr_y": value, "ssim_y": 0.9}
        for run, values in runs.items()
        for i, value in enumerate(values)
    )


def test_means_and_differences_by_hand():
    rows = rows_of({"a": [30.0, 32.0], "b": [31.0, 34.0]})
    assert list(set_means(rows).psnr_y) == [31.0, 32.5] and list(set_means(rows).images) == [2, 2]
    assert list(image_differences(rows, ["a"], ["b"])[0]) == [1.0, 2.0]
    assert list(image_differences(rows.iloc[:-1], ["a"], ["b"])[0]) == [1.0]  # only what both have
    with pytest.raises(ValueError, match="no rows of the run 'c'"):
        image_differences(rows, ["a"], ["c"])
    with pytest.raises(ValueError, match="as many, got 1 and 2"):
        image_differences(rows, ["a"], ["b", "b"])


def test_main_rows_by_scale_and_set_by_hand():
    seeds = zip((30.0, 30.4), COMPARISONS[0].reference, COMPARISONS[0].other, strict=False)
    runs = {run: [psnr] for level, a, b in seeds for run, psnr in ((a, level), (b, level + 0.5))}
    rows = pd.concat(
        [
            rows_of({"swinir_mini_x4_s0": [27.0], "taylorswinir_mini_x4_s0": [26.0]}).assign(upscale=4),
            rows_of(runs),
        ]
    )
    bicubic = pd.concat([rows_of({"bicubic": [29.0, 31.0]}), rows_of({"bicubic": [25.0]}).assign(upscale=4)])
    published = pd.DataFrame(
        [("SwinIR-S", "Set5", 2, 38.0, 0.96), ("SwinIR", "Set5", 2, 39.0, 0.97)],
        columns=["model", "set", "upscale", "psnr_y", "ssim_y"],
    )
    table = beside_published(rows, bicubic, published)
    psnr = table[table.metric == "psnr_y"].drop(columns="metric").round(6)
    assert psnr.to_numpy().tolist()[0] == [2, "Set5", 2, 30.0, 30.2, 30.7, 0.5, 38.0]
    assert psnr.to_numpy().tolist()[1][:-1] == [4, "Set5", 1, 25.0, 27.0, 26.0, -1.0]
    assert np.isnan(psnr.published.iloc[1])


def test_interval_by_hand():
    # mean 2, standard error 1/sqrt(3), Student's t with 2 degrees of freedom at 97.5 % is 4.302653
    low, high = interval([1.0, 2.0, 3.0])
    assert math.isclose(low, 2 - 4.302653 / math.sqrt(3), abs_tol=1e-6)
    assert math.isclose(high, 2 + 4.302653 / math.sqrt(3), abs_tol=1e-6)
    with pytest.raises(ValueError, match="at least two values, got 1"):
        interval([1.0])


MAIN = Comparison("main", "b over a", ("a0", "a1"), ("b0", "b1"))
ONE = Comparison("a", "c over a", ("a0",), ("c",))


def test_noise_of_the_seed_by_hand():
    rows = rows_of({"a0": [30.0, 30.0], "a1": [30.2, 30.2], "b0": [31.0, 31.0], "b1": [31.0, 31.0]})
    # variances within the arms: 0.02 and 0; of a difference of two runs: their mean twice, 0.02
    assert math.isclose(seed_noise(rows, MAIN), 2 * math.sqrt(0.02))
    with pytest.raises(ValueError, match="at least two of a0, a1"):
        seed_noise(rows[rows.run != "a1"], MAIN)


@pytest.mark.parametrize(
    ("b0", "b1", "verdict"),
    [
        ([31.0, 31.1, 31.2], [31.0, 31.1, 31.0], "better"),
        ([29.0, 29.1, 29.2], [29.0, 29.1, 29.0], "worse"),
        ([31.0, 31.1, 31.2], [29.9, 30.0, 30.1], "cannot say"),  # the seeds disagree
        ([36.0, 29.0, 31.0], [36.0, 29.0, 31.0], "cannot say"),  # the interval holds zero
    ],
)
def test_verdicts_of_several_seeds(b0, b1, verdict):
    table = compare(rows_of({"a0": [30.0, 30.1, 30.0], "a1": [30.1, 30.2, 30.1], "b0": b0, "b1": b1}), [MAIN])
    assert list(table.verdict) == [verdict]
    row = table.iloc[0]
    assert row.low < row.difference < row.high and row.seeds_low <= row.difference <= row.seeds_high


def test_networks_below_bicubic_are_not_judged():
    rows = rows_of({"a0": [30.0, 30.1], "a1": [30.1, 30.2], "b0": [31.0, 31.2], "b1": [31.0, 31.1]})
    for level, verdict in ((29.0, "better"), (30.12, "cannot say")):
        floor = rows_of({"bicubic": [level, level]})
        floor = pd.concat([floor, floor.assign(upscale=3, psnr_y=99.0)])  # of another scale
        assert list(compare(rows, [MAIN], floor=floor).verdict) == [verdict]


def test_one_seed_must_exceed_the_noise_of_the_seeds(monkeypatch):
    runs = {name: [30.0 + 0.1 * i + 0.05 * (seed == 1) for i in range(3)]
            for seed, name in enumerate(COMPARISONS[0].reference)}  # fmt: skip
    runs |= {name: [31.0, 31.0, 31.0] for name in COMPARISONS[0].other}
    first = COMPARISONS[0].reference[0]
    single = Comparison("a", "x", (first,), ("c",))
    small = {**runs, "c": [v + 0.02 + 0.001 * i for i, v in enumerate(runs[first])]}
    large = {**runs, "c": [v + 0.50 + 0.001 * i for i, v in enumerate(runs[first])]}
    assert list(compare(rows_of(small), [single]).verdict) == ["cannot say"]
    assert list(compare(rows_of(large), [single]).verdict) == ["better"]
    assert compare(rows_of(small), [Comparison("a", "x", (first,), ("absent",))]).empty
    partly = with_rows(Comparison("a", "x", (first, "absent"), ("c", "c")), rows_of(small))
    assert (partly.reference, partly.other) == ((first,), ("c",))


def test_every_comparison_names_runs_that_exist_and_that_share_the_seed():
    for entry in COMPARISONS:
        for reference, other in zip(entry.reference, entry.other, strict=True):
            pair = find_run("mini", reference), find_run("mini", other)
            assert pair[0].config.seed == pair[1].config.seed
            assert all(entry.experiment in run.experiments for run in pair), entry.label


def test_figures_show_what_they_are_given():
    report.use_style()
    columns = {"step": [1, 2, 3], "psnr_y": [20.0, np.nan, 30.0], "loss": [0.3, 0.2, 0.1]}
    seconds = {"seconds": [1.0, 2.0, 3.0], "cpu_seconds": [1.0, 2.0, 3.0]}
    curves = pd.DataFrame({"method": "swinir", "run": "a", **columns, **seconds})
    panels = report_quality.plot_learning_curves(curves, references={"bicubic": 28.0}).axes
    assert [list(axes.lines[0].get_xdata()) for axes in panels] == [[1, 3], [1, 3]]
    assert panels[0].lines[1].get_ydata()[0] == 28.0
    assert list(report_quality.plot_loss(curves).axes[0].lines[0].get_ydata()) == [0.3, 0.2, 0.1]
    table = compare(
        rows_of({"a0": [30.0, 30.1], "a1": [30.1, 30.2], "b0": [31.0, 31.2], "b1": [31.0, 31.1]}), [MAIN]
    )
    axes = report_quality.plot_differences(table, 0.1).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["(main) b over a"]
    gains = pd.DataFrame({"set": ["Set5"] * 2, "image": ["x", "y"], "gain": [0.2, -0.1]})
    assert [patch.get_height() for patch in report_quality.plot_image_gains(gains).axes[0].patches] == [
        -0.1,
        0.2,
    ]
