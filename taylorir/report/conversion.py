"""Tables and figures of the chapter on converted networks: the ladder of DAT-light, and its choices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ORIGINAL = "dat_light_x2"
_LABELS = {
    ORIGINAL: "as released",
    "swapped": "swapped, temperature 1",
    "swapped_best": "swapped, best temperature",
    "centred": "keys centred, temperature 1",
    "centred_best": "keys centred, best temperature",
    "order_4": "the same, series to order 4",
    "order_6": "the same, series to order 6",
}
_COLORS = {"softmax": "#0072B2", "converted": "#E69F00", "calibrated": "#D55E00", "control": "#56B4E9"}
LEAST_POINTS = 4
"""Of a curve, through which a law is laid."""


class Law(NamedTuple):
    """gap = gap_at_one * steps ** -power, in dB; laid through ``points`` points."""

    gap_at_one: float
    power: float
    points: int

    def gap(self, steps: float) -> float:
        """The gap after some steps, in dB."""
        return self.gap_at_one * steps**-self.power


def ladder(rows: pd.DataFrame, runs: pd.DataFrame, transfer_steps: int) -> pd.DataFrame:
    """The rungs that have been measured, in their order: means over each set, and the loss to the original.

    Args:
        rows: one an image: run, set, image, psnr_y, ssim_y.
        runs: one a run: run, temperature, steps, cpu_seconds.
        transfer_steps: steps of attention transfer, with which a calibration begins.

    Returns:
        Columns run, label, kind (a key of the colours: softmax, converted, calibrated, control), set, images,
        psnr_y, ssim_y, lost (dB below the original on the same set), temperature, steps, cpu_seconds.
    """
    rows = rows[rows["run"].isin([ORIGINAL, *runs["run"]])]
    means = rows.groupby(["run", "set"], sort=False).agg(
        images=("psnr_y", "size"), psnr_y=("psnr_y", "mean"), ssim_y=("ssim_y", "mean")
    )
    found = means.reset_index().merge(runs[["run", "temperature", "steps", "cpu_seconds"]], "left", on="run")
    original = found[found["run"] == ORIGINAL].set_index("set")["psnr_y"]
    found = found.fillna({"steps": 0, "cpu_seconds": 0.0}).astype({"steps": int})
    found["lost"] = found["set"].map(original) - found["psnr_y"]
    found["kind"] = found["run"].map(_kind)
    names = zip(found["run"], found["steps"], strict=True)
    found["label"] = [_label(run, steps, transfer_steps) for run, steps in names]
    places = [list(_COLORS), list(_LABELS)]
    found["by_kind"] = found["kind"].map(places[0].index)
    found["by_run"] = found["run"].map(lambda run: places[1].index(run) if run in places[1] else -1)
    found = found.sort_values(["by_kind", "by_run", "steps"], kind="stable", ignore_index=True)
    columns = ["run", "label", "kind", "set", "images", "psnr_y", "ssim_y", "lost"]
    return found[[*columns, "temperature", "steps", "cpu_seconds"]]


def _kind(run: str) -> str:
    stem = run.partition("_")[0]
    return "softmax" if run == ORIGINAL else stem if stem in ("calibrated", "control") else "converted"


def _label(run: str, steps: int, transfer_steps: int) -> str:
    if run in _LABELS:
        return _LABELS[run]
    if _kind(run) == "control":
        return f"released network trained on, {steps:,} steps"
    if steps <= transfer_steps:
        return f"attention transfer, {steps:,} steps"
    return f"and distillation, {steps:,} steps in all"


def gaps(curves: pd.DataFrame) -> pd.DataFrame:
    """How far the calibrated network is below the control at equal steps, on the held-out images.

    Args:
        curves: columns run ("calibrated", "control"), step, psnr_y (dB; rows without it are left out) and
            cpu_seconds.

    Returns:
        Columns step, calibrated, control, gap (dB), cpu_seconds (of the calibrated network).
    """
    measured = curves.dropna(subset=["psnr_y"])
    first, second = (
        measured[measured["run"] == run][["step", "psnr_y", "cpu_seconds"]]
        for run in ("calibrated", "control")
    )
    both = first.merge(second[["step", "psnr_y"]], on="step", suffixes=("", "_control"))
    both = both.rename(columns={"psnr_y": "calibrated", "psnr_y_control": "control"})
    return both.assign(gap=both["control"] - both["calibrated"])


def gap_law(gaps: pd.DataFrame) -> Law | None:
    """A power law through the gaps, or None where there are fewer than ``LEAST_POINTS``, or they do not fall.

    Least squares of log gap on log steps.
    """
    points = gaps[gaps["gap"] > 0]
    if len(points) < LEAST_POINTS:
        return None
    slope, constant = np.polyfit(np.log(points["step"]), np.log(points["gap"]), 1)
    return Law(math.exp(constant), -slope, len(points)) if slope < 0 else None


def forecast(gaps: pd.DataFrame, steps: int) -> str:
    """What the law says of the gap after some steps, or why it cannot say anything yet."""
    law = gap_law(gaps)
    if law is None:
        return f"too few points to extrapolate ({len(gaps)} of {LEAST_POINTS})"
    return f"{law.gap(steps):.2f} dB below the control after {steps:,} steps (power law, {law.points} points)"


def plot_ladder(rungs: pd.DataFrame, curves: pd.DataFrame, *, set_name: str, last_step: int) -> Figure:
    """Left, every rung on one set; right, the two trainings on the held-out images, and where they lead.

    Args:
        rungs: as :func:`ladder` gives them.
        curves: as :func:`gaps` takes them.
        set_name: of the left panel.
        last_step: to which the law is drawn.
    """
    figure = Figure(figsize=(9.4, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_rungs(left, rungs, set_name)
    _draw_curves(right, curves, last_step)
    return figure


def plot_rungs(rungs: pd.DataFrame, *, set_name: str) -> Figure:
    """Every rung on one set, as :func:`ladder` gives them; of each training the last one only."""
    figure = Figure()
    trained = rungs["kind"].isin(["calibrated", "control"])
    last = rungs.groupby(["kind", "set"])["steps"].transform("max")
    _draw_rungs(figure.subplots(), rungs[~trained | (rungs["steps"] == last)], set_name)
    return figure


def _draw_rungs(axes: Axes, rungs: pd.DataFrame, set_name: str) -> None:
    shown = rungs[rungs["set"] == set_name].iloc[::-1]
    places = np.arange(len(shown))
    for value in shown[shown["run"] == ORIGINAL]["psnr_y"]:
        axes.axvline(value, color="#888888", linewidth=1, linestyle=":")
    axes.scatter(shown["psnr_y"], places, color=shown["kind"].map(_COLORS), zorder=3)
    for place, value in zip(places, shown["psnr_y"], strict=True):
        above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(f"{value:.2f}", (value, place), **above)
    axes.set_yticks(places, shown["label"])
    axes.set(xlabel=f"PSNR-Y on {set_name}, dB")
    axes.margins(x=0.12, y=0.09)


def _draw_curves(axes: Axes, curves: pd.DataFrame, last_step: int) -> None:
    points = gaps(curves)
    for run, label in (("control", "released, trained on"), ("calibrated", "converted, calibrated")):
        rows = curves[curves["run"] == run].dropna(subset=["psnr_y"])
        marker = "o" if run == "control" else "P"
        axes.plot(rows["step"], rows["psnr_y"], color=_COLORS[run], marker=marker, label=label)
    law = gap_law(points)
    if law is not None:
        steps = np.geomspace(points["step"].max(), last_step, 20)
        level = points["control"].iloc[-1]
        axes.plot(
            steps,
            level - law.gap_at_one * steps**-law.power,
            color=_COLORS["calibrated"],
            linestyle=":",
            label="extrapolated",
        )
    axes.set_xscale("log")
    axes.set(xlabel="steps", ylabel="PSNR-Y on held-out photographs, dB")
    if len(curves):
        axes.legend()


def after_training(rungs: pd.DataFrame, set_name: str) -> str:
    """What training has brought back so far, in words that follow "and"."""
    trained = rungs[(rungs["kind"] == "calibrated") & (rungs["set"] == set_name)]
    if trained.empty:
        return "has not been trained on here yet"
    last = trained.loc[trained["steps"].idxmax()]
    minutes = last["cpu_seconds"] / 60
    return f"{last['lost']:.2f} dB after {last['steps']:,} steps of calibration ({minutes:.0f} CPU minutes)"


def survey_table(sites: pd.DataFrame) -> pd.DataFrame:
    """The rows of a survey as readers see them: one a family, module and number of tokens.

    Args:
        sites: as ``taylorir.experiments.families`` writes them.

    Returns:
        Columns family, class, kind, sites (how many), tokens (queries x keys), width and crossover (one
        number, or the least and the largest), added ("bias, mask"), converted ("yes", or why not).
    """
    keys = ["family", "class", "kind", "queries", "keys", "known"]
    lines = []
    for key, rows in sites.groupby(keys, sort=False):
        family, name, kind, queries, columns, known = key
        line = {"family": family, "class": name, "kind": kind, "sites": rows["sites"].sum()}
        line |= {"tokens": f"{queries:,} x {columns:,}", "width": _range(rows["width"])}
        line["crossover"] = _range(rows["crossover"]) if known else ""
        line["added"] = ", ".join(name for name in ("bias", "mask") if rows[name].any())
        lines.append(line | {"converted": "yes" if known else f"no: {rows['note'].iloc[0]}"})
    return pd.DataFrame(lines)


def _range(values: pd.Series) -> str:
    return " to ".join(f"{value:,}" for value in dict.fromkeys([values.min(), values.max()]))


def memory_by_window(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a family, two columns a window: softmax_8, taylor_8, softmax_16, ... in MiB.

    Args:
        rows: family, window_size, method ("softmax" or "taylor"), peak_memory_mib.
    """
    wide = rows.pivot(index="family", columns=["window_size", "method"], values="peak_memory_mib")
    wide = wide.reindex(list(dict.fromkeys(rows["family"])))
    columns = sorted(wide.columns)
    wide = wide[columns].set_axis([f"{method}_{window}" for window, method in columns], axis=1)
    return wide.reset_index()


def plot_choices(crops: pd.DataFrame) -> Figure:
    """Before any training, on crops of training images: temperatures and orders; and each layer alone.

    Args:
        crops: columns temperature, centre_keys, order, layers ("all", "none" or an index), psnr_y (dB).
    """
    figure = Figure(figsize=(9.4, 3.4))
    left, right = figure.subplots(1, 2)
    everything = crops[crops["layers"] == "all"]
    for (order, centred), rows in everything.groupby(["order", "centre_keys"]):
        rows = rows.sort_values("temperature")
        name = f"order {order}" + ("" if centred else ", keys as they are")
        left.plot(rows["temperature"], rows["psnr_y"], "-" if centred else "--", marker="o", label=name)
    original = crops[crops["layers"] == "none"]["psnr_y"]
    for value in original:
        left.axhline(value, color="#555555", linestyle=":", label="softmax")
    left.set(xlabel="temperature of all heads", ylabel="PSNR-Y on training crops, dB")
    if len(crops):
        left.legend(fontsize=8)
    layers = one_by_one(crops)
    right.bar(layers["layer"], layers["lost"], color=_COLORS["converted"])
    right.set(xlabel="the one layer that is converted", ylabel="loss, dB", xticks=layers["layer"])
    return figure


def one_by_one(crops: pd.DataFrame) -> pd.DataFrame:
    """What the conversion of each layer alone costs.

    Args:
        crops: as :func:`plot_choices` takes them.

    Returns:
        Columns layer (from 1) and lost (dB); no rows where the original is not measured.
    """
    alone = crops[~crops["layers"].isin(["all", "none"])]
    original = crops[crops["layers"] == "none"]["psnr_y"]
    if original.empty:
        alone = alone.iloc[:0]
    found = pd.DataFrame({"layer": alone["layers"].astype(int) + 1, "psnr_y": alone["psnr_y"]})
    return found.assign(lost=original.mean() - found["psnr_y"])[["layer", "lost"]].sort_values("layer")
