"""Tables and figures of the chapter on converted networks: the ladder of DAT-light, and its choices."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import t as student

from taylorir.report.tables import legend_below

ORIGINAL = "dat_light_x2"
BEGINNING = "centred_best"
"""The rung that is trained on."""
_LABELS = {
    ORIGINAL: "as released",
    "swapped": "swapped, temperature 1",
    "swapped_best": "swapped, best temperature",
    "centred": "keys centred, temperature 1",
    "centred_best": "keys centred, best temperature",
    "order_4": "the same, series to order 4",
    "order_6": "the same, series to order 6",
    "partial_3": "three layers converted, six kept",
    "partial_6": "six layers converted, three kept",
    "window_16x64": "rectangles of 16 × 64",
    "window_48x48": "windows of 48 × 48",
}
_COLORS = {"softmax": "#0072B2", "converted": "#E69F00", "calibrated": "#D55E00", "control": "#56B4E9"}
LEAST_POINTS = 3
"""Marks of a training, through which a law is laid."""
LINE_HEIGHT = 0.22
"""Inches of a figure, for each rung that it shows."""


@dataclass(frozen=True)
class Law:
    """What is lost after some steps of training: lost(n) = lost(0) (1 + n / scale)^-power, in dB.

    Attributes:
        beginning: lost(0), which is measured.
        log_scale, power: laid through the marks, by least squares of log lost.
        covariance: of these two, [2, 2], from the scatter of the marks about the law.
        marks: how many.
    """

    beginning: float
    log_scale: float
    power: float
    covariance: np.ndarray
    marks: int

    def lost(self, steps: float | np.ndarray) -> float | np.ndarray:
        """In dB, after some steps."""
        return self.beginning * np.exp(_log_kept(steps, self.log_scale, self.power))

    def bounds(self, steps: float | np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest loss in dB, at a level of confidence in the law, if the law is the right one.

        Of log lost by its derivatives, with Student's t of the marks beyond the two numbers that are laid.
        """
        scale = np.exp(self.log_scale)
        slopes = np.stack([self.power * steps / (steps + scale), -np.log1p(steps / scale)])
        spread = np.sqrt(np.einsum("i...,ij,j...->...", slopes, self.covariance, slopes))
        spread = spread * student.ppf((1 + level) / 2, self.marks - 2)
        return self.lost(steps) * np.exp(-spread), self.lost(steps) * np.exp(spread)


def _log_kept(steps: np.ndarray, log_scale: float, power: float) -> np.ndarray:
    return -power * np.log1p(steps / np.exp(log_scale))


def ladder(rows: pd.DataFrame, runs: pd.DataFrame, transfer_steps: int) -> pd.DataFrame:
    """The rungs that have been measured, in their order: means over each set, and the loss to the original.

    A set on which the original has not been measured is left out.

    Args:
        rows: one an image: run, set, image, psnr_y, ssim_y.
        runs: one a run: run, temperature, steps, cpu_seconds.
        transfer_steps: steps of attention transfer, with which a calibration begins.

    Returns:
        Columns run, label, kind (a key of the colours: softmax, converted, calibrated, control), set, images,
        psnr_y, ssim_y, lost (dB below the original on the same set), temperature, steps, cpu_seconds.
    """
    compared = rows["set"].isin(rows[rows["run"] == ORIGINAL]["set"])
    rows = rows[compared & rows["run"].isin([ORIGINAL, *runs["run"]])]
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
    return f"calibrated, {steps:,} steps"


def law(rungs: pd.DataFrame, set_name: str) -> Law | None:
    """The law through the marks of the calibrated network on a set, or None where there are too few.

    Args:
        rungs: as :func:`ladder` gives them.
        set_name: of the losses.
    """
    here = rungs[rungs["set"] == set_name]
    beginning = here[here["run"] == BEGINNING]["lost"]
    marks = here[(here["kind"] == "calibrated") & (here["lost"] > 0)]
    if len(marks) < LEAST_POINTS or beginning.empty or beginning.iloc[0] <= marks["lost"].max():
        return None
    first = float(beginning.iloc[0])
    kept = np.log(marks["lost"] / first)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)  # no covariance, so nothing to forecast with
        try:
            found, covariance = curve_fit(_log_kept, marks["steps"], kept, p0=(np.log(100.0), 0.5))
        except (OptimizeWarning, RuntimeError):
            return None
    return Law(first, *map(float, found), covariance, len(marks)) if found[1] > 0 else None


def forecast(rungs: pd.DataFrame, set_name: str, steps: int) -> str:
    """What the law says of the loss after some steps, or why it says nothing: too early, or too late."""
    of_set = rungs[(rungs["set"] == set_name) & (rungs["kind"] == "calibrated")]
    if of_set["steps"].max() >= steps:
        return f"all {steps:,} steps that were planned are done, so nothing is left to forecast"
    found = law(rungs, set_name)
    if found is None:
        return f"too few marks to extrapolate ({len(of_set)} of {LEAST_POINTS})"
    least, largest = found.bounds(steps)
    if largest > found.beginning:
        return (
            f"a law through {found.marks} marks says {found.lost(steps):.2f} dB below the released network "
            f"after {steps:,} steps, but they leave it so open that it forecasts nothing yet"
        )
    return (
        f"{found.lost(steps):.2f} dB below the released network after {steps:,} steps, "
        f"between {least:.2f} and {largest:.2f} at 95 % if the law holds ({found.marks} marks)"
    )


def plot_ladder(rungs: pd.DataFrame, *, set_name: str, last_step: int) -> Figure:
    """Left, every rung on one set; right, what the two trainings lose there by steps, and where that leads.

    Args:
        rungs: as :func:`ladder` gives them.
        set_name: of both panels.
        last_step: to which the law is drawn.
    """
    lines = (rungs["set"] == set_name).sum()
    figure = Figure(figsize=(9.4, max(4.9, LINE_HEIGHT * lines + 1.6)))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_rungs(left, rungs, set_name)
    _draw_training(right, rungs, set_name, last_step)
    legend_below(figure)
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
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{value:.2f}", (value, place), **beside)
    axes.set_yticks(places, shown["label"])
    axes.set(xlabel=f"PSNR-Y on {set_name}, dB")
    axes.margins(x=0.2, y=0.03)


def _draw_training(axes: Axes, rungs: pd.DataFrame, set_name: str, last_step: int) -> None:
    here = rungs[rungs["set"] == set_name]
    trainings = (
        ("calibrated", BEGINNING, "P", "converted, calibrated"),
        ("control", ORIGINAL, "o", "released, trained on"),
    )
    for kind, beginning, marker, label in trainings:
        rows = here[(here["kind"] == kind) | (here["run"] == beginning)].sort_values("steps")
        axes.plot(rows["steps"], rows["lost"], color=_COLORS[kind], marker=marker, label=label)
    found = law(rungs, set_name)
    if found is not None:
        steps = np.geomspace(1, last_step + 1) - 1
        style = {"color": _COLORS["calibrated"], "linewidth": 1.8}
        axes.plot(steps, found.lost(steps), linestyle=":", label="law", **style)
        axes.fill_between(steps, *np.minimum(found.bounds(steps), found.beginning), alpha=0.15, **style)
    axes.set_xscale("symlog", linthresh=100)
    axes.set(xlabel="steps", ylabel=f"dB below the released network on {set_name}")
    axes.legend()


def after_training(rungs: pd.DataFrame, set_name: str) -> str:
    """What training has brought back so far, in words that follow "and": the last mark, on other sets too,
    and the best one where that is another."""
    trained = rungs[(rungs["kind"] == "calibrated") & (rungs["set"] == set_name)]
    if trained.empty:
        return "has not been trained on here yet"
    last, best = trained.sort_values("steps").iloc[-1], trained.sort_values("lost").iloc[0]
    said = [f"{last['cpu_seconds'] / 60:.0f} CPU minutes"]
    same = rungs[(rungs["run"] == last["run"]) & (rungs["set"] != set_name)]
    said += [f"{row.lost:.2f} dB on {row.set}" for row in same.itertuples()]
    text = f"{last['lost']:.2f} dB after {last['steps']:,} steps of calibration ({'; '.join(said)})"
    if round(best["lost"], 2) < round(last["lost"], 2):  # as it is printed
        text += f", least after {best['steps']:,}, {best['lost']:.2f} dB"
    return text


def both_trained(rungs: pd.DataFrame) -> pd.DataFrame:
    """Both networks trained on, at the mark at which most sets have both of them; of several the last.

    Args:
        rungs: as :func:`ladder` gives them.

    Returns:
        A line a set and, of several, one of their mean: columns steps, set, images, original, control,
        calibrated (PSNR-Y in dB), difference (calibrated less control). No lines where no mark has both.
    """
    wide = rungs.pivot_table(index=["steps", "set"], columns="kind", values="psnr_y")
    wide = wide.reindex(columns=["control", "calibrated"]).dropna().reset_index()
    counts = wide.groupby("steps")["set"].transform("size")
    most = wide[counts == counts.max()]
    original = rungs.loc[rungs["run"] == ORIGINAL, ["set", "images", "psnr_y"]]
    here = original.rename(columns={"psnr_y": "original"}).merge(most[most["steps"] == most["steps"].max()])
    if len(here) > 1:
        mean = {"steps": here["steps"].iloc[0], "set": "mean of sets", "images": here["images"].sum()}
        mean |= here[["original", "control", "calibrated"]].mean().to_dict()
        here = pd.concat([here, pd.DataFrame([mean])])
    here["difference"] = here["calibrated"] - here["control"]
    columns = ["steps", "set", "images", "original", "control", "calibrated", "difference"]
    return here[columns].reset_index(drop=True)


def against_control(rungs: pd.DataFrame, set_name: str) -> str:
    """How the converted network stands to the released one, both trained on, where :func:`both_trained` has
    them: on a set, and where there are more, on their mean and on those that differ most."""
    both = both_trained(rungs)
    if set_name not in list(both["set"]):
        return "no mark of both trainings has been measured yet"
    here = both.set_index("set").loc[set_name]
    said, gained = f"{_apart(-here['difference'])} the released one", here["control"] - here["original"]
    if len(both) > 1:
        sets, mean = both.iloc[:-1].sort_values("difference"), both["difference"].iloc[-1]
        ends = (f"{_apart(-row.difference)} on {row.set}" for row in sets.iloc[[0, -1]].itertuples())
        said += f" ({_apart(-mean)} it on the mean of {len(sets)} sets, from {' to '.join(ends)})"
    itself = f"{'lost' if gained < 0 else 'gained'} {abs(gained):.2f} dB"
    steps = f"after {both['steps'].iloc[0]:,} steps each"
    return f"{steps}, the converted network is {said}, which has {itself} itself"


def _apart(below: float) -> str:
    return f"{abs(below):.2f} dB {'below' if below > 0 else 'above'}"


def survey_table(sites: pd.DataFrame) -> pd.DataFrame:
    """The rows of a survey as readers see them: one a family, module and number of tokens.

    Args:
        sites: as ``taylorir.experiments.families`` writes them.

    Returns:
        Columns family, class, kind, sites (how many), tokens (queries × keys), width and crossover (one
        number, or the least and the largest), added ("bias, mask"), converted ("yes", or why not).
    """
    keys = ["family", "class", "kind", "queries", "keys", "known"]
    lines = []
    for key, rows in sites.groupby(keys, sort=False):
        family, name, kind, queries, columns, known = key
        line = {"family": family, "class": name, "kind": kind, "sites": rows["sites"].sum()}
        line |= {"tokens": f"{queries:,} × {columns:,}", "width": _range(rows["width"])}
        line["crossover"] = _range(rows["crossover"]) if known else ""
        line["added"] = ", ".join(name for name in ("bias", "mask") if rows[name].any())
        lines.append(line | {"converted": "yes" if known else f"no: {rows['note'].iloc[0]}"})
    return pd.DataFrame(lines)


def _range(values: pd.Series) -> str:
    return " to ".join(f"{value:,}" for value in dict.fromkeys([values.min(), values.max()]))


def by_window(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One line a family, two columns a window: softmax_8, taylor_8, softmax_16, ...

    Args:
        rows: family, window_size, method ("softmax" or "taylor"), one each, and ``column``.
        column: of the numbers. One is missing where a family has no softmax at a window.
    """
    wide = rows.pivot(index="family", columns=["window_size", "method"], values=column)
    wide = wide.reindex(list(dict.fromkeys(rows["family"])))
    columns = sorted(wide.columns)
    wide = wide[columns].set_axis([f"{method}_{window}" for window, method in columns], axis=1)
    return wide.reset_index()


def window_headings(wide: pd.DataFrame) -> dict[str, str]:
    """Headings of the columns of :func:`by_window`."""
    methods = {"softmax": "softmax", "taylor": "converted"}
    parts = {name: name.partition("_") for name in wide.columns[1:]}
    return {"family": "family"} | {
        name: f"{window}: {methods[method]}" for name, (method, _, window) in parts.items()
    }


def plot_choices(crops: pd.DataFrame) -> Figure:
    """Before any training, on crops of training images: temperatures and orders; and each layer alone.

    Args:
        crops: columns temperature, centre_keys, order, layers ("all", "none" or an index), psnr_y (dB).
    """
    figure = Figure(figsize=(9.4, 3.8))
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
        left.legend()
    layers = one_by_one(crops)
    right.bar(layers["layer"], layers["lost"], color=_COLORS["converted"])
    right.set(xlabel="the one layer that is converted", ylabel="loss, dB", xticks=layers["layer"])
    legend_below(figure)
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
