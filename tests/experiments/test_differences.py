"""Differences of quality: values computed by hand, and a verdict that is given only when it is earned."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from taylorir.experiments.differences import (
    below_floor,
    beside_published,
    compare,
    floor_of,
    image_differences,
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


def test_differences_by_hand():
    rows = rows_of({"a": [30.0, 32.0], "b": [31.0, 34.0]})
    assert list(image_differences(rows, ["a"], ["b"])[0]) == [1.0, 2.0]
    assert list(image_differences(rows.iloc[:-1], ["a"], ["b"])[0]) == [1.0]  # only what both have
    with pytest.raises(ValueError, match="no rows of the run 'c'"):
        image_differences(rows, ["a"], ["c"])
    with pytest.raises(ValueError, match="as many, got 1 and 2"):
        image_differences(rows, ["a"], ["b", "b"])


def test_main_rows_by_scale_and_set_by_hand():
    seeds = zip((30.0, 30.4), COMPARISONS[0].reference, COMPARISONS[0].other, strict=False)
    floor = {"linear_mini_x2_s0": [29.2], "linear_mini_x2_s1": [29.4]}
    runs = {run: [psnr] for level, a, b in seeds for run, psnr in ((a, level), (b, level + 0.5))}
    rows = pd.concat(
        [
            rows_of({"swinir_mini_x4_s0": [27.0], "taylorswinir_mini_x4_s0": [26.0]}).assign(upscale=4),
            rows_of(runs | floor),
        ]
    )
    bicubic = pd.concat([rows_of({"bicubic": [29.0, 31.0]}), rows_of({"bicubic": [25.0]}).assign(upscale=4)])
    published = pd.DataFrame(
        [("SwinIR-S", "Set5", 2, 38.0, 0.96), ("SwinIR", "Set5", 2, 39.0, 0.97)],
        columns=["model", "set", "upscale", "psnr_y", "ssim_y"],
    )
    table = beside_published(rows, bicubic, published)
    psnr = table[table.metric == "psnr_y"].drop(columns="metric").round(6)
    assert psnr.to_numpy().tolist()[0] == [2, "Set5", 2, 30.0, 29.3, 30.2, 30.7, 0.5, 38.0]
    others = psnr.iloc[1].drop(["floor", "published"])
    assert others.tolist() == [4, "Set5", 1, 25.0, 27.0, 26.0, -1.0]
    assert np.isnan(psnr.floor.iloc[1]) and np.isnan(psnr.published.iloc[1])


MAIN = Comparison("main", "b over a", ("a0", "a1"), ("b0", "b1"))


SEEDS = {"a0": [30.0, 30.1, 30.0, 30.2, 30.1], "a1": [30.1, 30.2, 30.1, 30.3, 30.1]}
"""Two seeds of five images."""


def plus(name: str, gains: tuple[float, ...]) -> dict[str, list[float]]:
    """Runs that gain as much on every image, and a little on one of them."""
    return {
        f"{name}{seed}": [value + gain + 0.001 * i for i, value in enumerate(SEEDS[f"a{seed}"])]
        for seed, gain in enumerate(gains)
    }


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((1.0, 1.01), "better"),
        ((-1.0, -1.01), "worse"),
        ((1.0, 0.3), "cannot say"),  # both seeds gain, on every image; but two seeds that differ say little
        ((1.0, -1.0), "cannot say"),
    ],
)
def test_verdicts_count_the_seeds(gains, verdict):
    row = compare(rows_of(SEEDS | plus("b", gains)), [MAIN]).iloc[0]
    assert row.verdict == verdict and (row.images, row.seeds, row.planned) == (5, 2, 2)
    # images' means are the seeds' mean and 0, 0.001, ..., 0.004, of standard error 0.001/sqrt(2)
    error = math.hypot(abs(gains[0] - gains[1]) / 2, 0.001 / math.sqrt(2))
    assert row.difference == pytest.approx(sum(gains) / 2 + 0.002)
    half = 12.706204736 * error  # Student's t with one degree of freedom
    assert (row.low, row.high) == pytest.approx((row.difference - half, row.difference + half))
    assert (row.seeds_low, row.seeds_high) == pytest.approx((min(gains) + 0.002, max(gains) + 0.002))
    assert row.wins == {1.3: 1, 2.01: 1, -2.01: 0, 0: 0.8}[sum(gains)]  # for 0, by those thousandths


def test_networks_below_the_floor_are_not_judged():
    rows = rows_of(SEEDS | plus("b", (1.0, 1.01)))
    for level, verdict in ((29.0, "better"), (30.12, "below the floor: not judged")):
        floor = rows_of({"f0": [level - 0.1] * 5, "f1": [level + 0.1] * 5})
        floor = pd.concat([floor, floor.assign(upscale=3, psnr_y=99.0)])  # of another scale
        assert list(compare(rows, [MAIN], floor=floor).verdict) == [verdict]
    assert list(compare(rows, [MAIN], floor=floor[floor.upscale == 3]).verdict) == ["no floor: not judged"]
    transformer = Comparison("floor", "b over the floor", ("f0", "f1"), ("b0", "b1"))
    both = pd.concat([rows, floor[floor.upscale == 2]])
    assert list(compare(both, [transformer], floor=floor).barred) == [""]  # the floor need not surpass itself
    assert list(floor_of(rows_of({"linear_mini_x2_s1": [1.0], "a": [2.0]})).psnr_y) == [1.0]


def test_runs_below_the_floor_are_named():
    values = {"floor0": (30.0, 20.0), "floor1": (31.0, 21.0), "over": (31.0, 20.1), "equal": (30.5, 20.5)}
    rows = pd.DataFrame(
        {"run": run, "set": "S", "image": image, "upscale": 2, "psnr_y": value}
        for run, psnrs in values.items()
        for image, value in zip("xy", psnrs, strict=True)
    )
    apart = rows[rows.run == "over"].assign(run="other scale", upscale=4, psnr_y=0.0)
    floor = rows[rows.run.isin(["floor0", "floor1"])]  # 30.5 and 20.5 on average
    assert below_floor(pd.concat([rows, apart]), floor) == ["equal"]


def test_a_comparison_with_a_floor_of_its_own_is_held_to_that():
    rows = rows_of(SEEDS | plus("b", (1.0, 1.01)) | {"f0": [29.0] * 5, "g0": [30.5] * 5})
    for own, verdict in (("f0", "better"), ("g0", "below the floor: not judged")):
        entry = dataclasses.replace(MAIN, floor=(own,))
        assert list(compare(rows, [entry], floor=rows[rows.run == "f0"]).verdict) == [verdict]
    assert list(compare(rows, [dataclasses.replace(MAIN, floor=("absent",))]).verdict) == [
        "no floor: not judged"
    ]


def test_no_verdict_from_one_seed_few_images_or_fewer_seeds_than_planned():
    rows = rows_of(SEEDS | plus("b", (1.0, 1.01)))
    single = compare(rows, [Comparison("a", "x", ("a0",), ("b0",))]).iloc[0]
    assert (
        single.verdict == "one seed: no verdict" and np.isnan([single.low, single.p, single.detectable]).all()
    )
    three = Comparison("main", "x", ("a0", "a1", "a2"), ("b0", "b1", "b2"))
    assert list(compare(rows, [three]).verdict) == ["2 of 3 seeds: no verdict"]
    assert list(compare(rows[rows.image < "i3"], [MAIN]).verdict) == ["3 images: no verdict"]
    assert compare(rows, [Comparison("a", "x", ("a0",), ("absent",))]).empty
    partly = with_rows(three, rows)
    assert (partly.reference, partly.other) == (("a0", "a1"), ("b0", "b1"))


def test_each_set_has_a_row_and_the_table_one_correction():
    rows = rows_of(SEEDS | plus("b", (1.0, 1.0)))
    table = compare(pd.concat([rows, rows.assign(set="Set14")]), [MAIN], by_set=True)
    assert list(table["set"]) == ["Set5", "Set14"] and list(table.images) == [5, 5]
    assert table.p_holm.tolist() == pytest.approx((2 * table.p).tolist())


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
    single = Comparison("a", "one seed", ("a0",), ("b0",))
    table = compare(rows_of(SEEDS | plus("b", (1.0, 1.1))), [MAIN, single])
    axes = report_quality.plot_differences(table).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["(main) b over a", "(a) one seed"]
    assert list(axes.lines[-1].get_xdata()) == [pytest.approx(1.002)]
    axes = report_quality.plot_gaps(table.assign(stage=["mini", "mid"]), claimed=(0.02, 0.31)).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["mini", "mid"]
    (segments,) = [c.get_segments() for c in axes.collections if len(c.get_segments()) == 2][-1:]
    assert [segment[:, 1].tolist() for segment in segments] == [
        pytest.approx(ends) for ends in table[["seeds_low", "seeds_high"]].to_numpy().tolist()
    ]
    gains = pd.DataFrame({"set": ["Set5"] * 2, "image": ["x", "y"], "gain": [0.2, -0.1]})
    assert [patch.get_height() for patch in report_quality.plot_image_gains(gains).axes[0].patches] == [
        -0.1,
        0.2,
    ]
