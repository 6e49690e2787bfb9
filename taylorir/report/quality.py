"""Figures of image quality: learning curves, gains with their intervals, quality against cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from taylorir.report.tables import style_of


def plot_learning_curves(
    curves: pd.DataFrame, *, references: Mapping[str, float] | None = None, time: str = "cpu_seconds"
) -> Figure:
    """PSNR-Y on the held-out images against iterations, and against time.

    Args:
        curves: columns method (a key of ``report.METHODS``), run, step, psnr_y (dB; rows without it are left
            out) and the time in seconds.
        references: horizontal lines by label, e.g. ``{"bicubic": 31.2}``.
        time: the column of the time: seconds (wall clock) or cpu_seconds.
    """
    figure = Figure(figsize=(7.2, 3.4))
    panels = figure.subplots(1, 2, sharey=True)
    measured = curves.dropna(subset=["psnr_y"])
    label = {"seconds": "seconds of training", "cpu_seconds": "CPU seconds of training"}[time]
    for axes, x, xlabel in zip(panels, ("step", time), ("iterations", label), strict=True):
        named = set()
        for (method, _), rows in measured.groupby(["method", "run"], sort=False):
            style = style_of(method)
            name = None if method in named else style.label
            axes.plot(rows[x], rows.psnr_y, style.dashes, color=style.color, marker=style.marker, label=name)
            named.add(method)
        for name, value in (references or {}).items():
            axes.axhline(value, color="#7f7f7f", linestyle=":", label=name)
        axes.set(xlabel=xlabel)
    panels[0].set_ylabel("PSNR-Y on held-out images, dB")
    panels[0].legend()
    lowest = min([measured.psnr_y.quantile(0.15), *(references or {}).values()])
    panels[0].set_ylim(lowest - 0.5, measured.psnr_y.max() + 0.3)
    return figure


def plot_loss(curves: pd.DataFrame) -> Figure:
    """The L1 loss against iterations, both on logarithmic axes.

    Args:
        curves: columns method (a key of ``report.METHODS``), run, step and loss.
    """
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots()
    for (method, _), rows in curves.groupby(["method", "run"], sort=False):
        style = style_of(method)
        axes.loglog(rows.step, rows.loss, style.dashes, color=style.color, label=style.label)
    axes.set(xlabel="iterations", ylabel="L1 loss on training crops")
    axes.legend()
    return figure


def plot_differences(comparisons: pd.DataFrame) -> Figure:
    """Differences of PSNR-Y, one line a comparison, with their intervals; a seed alone has none.

    Args:
        comparisons: columns experiment, label, difference, low, high, seeds, seeds_low, seeds_high (dB), as
            ``taylorir.experiments.compare`` gives them.
    """
    figure = Figure(figsize=(7.2, 0.34 * len(comparisons) + 1.1))
    axes = figure.subplots()
    places = np.arange(len(comparisons))[::-1]
    axes.axvline(0, color="#888888", linewidth=1)
    several = (comparisons["seeds"] > 1).to_numpy()
    if several.any():
        judged = comparisons[several]
        spread = np.abs(judged[["low", "high"]].to_numpy().T - judged["difference"].to_numpy())
        axes.errorbar(
            judged["difference"], places[several], xerr=spread, fmt="o", color="#D55E00", capsize=3,
            label="mean, 95% interval over seeds and images",
        )  # fmt: skip
        ends = judged[["seeds_low", "seeds_high"]].to_numpy()
        axes.hlines(
            places[several] - 0.22, ends[:, 0], ends[:, 1], color="#0072B2", label="range of the seeds"
        )
    if not several.all():
        axes.plot(
            comparisons[~several]["difference"], places[~several], "o", color="#D55E00",
            markerfacecolor="white", label="one seed: no verdict",
        )  # fmt: skip
    axes.set_yticks(places, [f"({row.experiment}) {row.label}" for row in comparisons.itertuples()])
    axes.set(xlabel="difference of PSNR-Y, dB")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_gaps(stages: pd.DataFrame, *, claimed: tuple[float, float]) -> Figure:
    """The main difference at each size and budget with its interval, the seeds, and what is claimed.

    Args:
        stages: a row a stage, in the order of the axis: stage (its name), difference, low, high (dB; NaN for
            one seed), seeds_low and seeds_high.
        claimed: ends of a band, in dB.
    """
    figure = Figure(figsize=(7.2, 3.4))
    axes = figure.subplots()
    places = np.arange(len(stages))
    axes.axhspan(*claimed, color="#009E73", alpha=0.15, label="gains that the paper claims")
    axes.axhline(0, color="#888888", linewidth=1)
    spread = np.abs(stages[["low", "high"]].to_numpy().T - stages["difference"].to_numpy())
    axes.errorbar(
        places, stages["difference"], yerr=np.nan_to_num(spread), fmt="o", color="#D55E00", capsize=3,
        label="mean, 95% interval over seeds and images",
    )  # fmt: skip
    axes.vlines(
        places + 0.12, stages["seeds_low"], stages["seeds_high"], color="#0072B2", label="range of the seeds"
    )
    axes.set_xticks(places, stages["stage"].str.replace(", ", ",\n"))
    axes.set_xlim(-0.5, len(stages) - 0.5)
    axes.set_ylabel("TaylorSwinIR over SwinIR,\ndB PSNR-Y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_image_gains(gains: pd.DataFrame) -> Figure:
    """The gain of each image, sorted, one panel a set.

    Args:
        gains: columns set, image and gain (dB).
    """
    sets = list(dict.fromkeys(gains["set"]))
    figure = Figure(figsize=(7.2, 3.0))
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        values = gains[gains["set"] == name]["gain"].sort_values().to_numpy()
        axes.bar(np.arange(len(values)), values, width=0.9, color=np.where(values > 0, "#D55E00", "#0072B2"))
        axes.axhline(0, color="#555555", linewidth=0.8)
        axes.axhline(values.mean(), color="#222222", linestyle="--", linewidth=1.2)
        axes.set(title=f"{name} ({len(values)})", xticks=[], xlabel="images, sorted")
    panels[0].set_ylabel("gain over SwinIR, dB")
    return figure


def plot_few_crops(gains: pd.DataFrame) -> Figure:
    """What training on few crops gains over a network without a transformer: on these, and on unseen images.

    Args:
        gains: columns crops, patch_size, fitted and unseen (dB over the network without a transformer).
    """
    figure = Figure(figsize=(7.2, 3.2))
    panels = figure.subplots(1, 2)
    sides, counts = sorted(set(gains.patch_size)), sorted(set(gains.crops))
    colours = dict(zip(sides, ("#D55E00", "#009E73", "#0072B2", "#CC79A7"), strict=False))
    markers = dict(zip(sides, "osD^", strict=False))
    titles = {"fitted": "on the crops it trained on", "unseen": "on images that it never saw"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        axes.axhline(0, color="#888888", linewidth=1)
        for side in sides:
            points = gains[gains.patch_size == side]
            means = points.groupby("crops")[column].mean()
            axes.plot(
                means.index, means, color=colours[side], marker=markers[side], label=f"{side} × {side} pixels"
            )
            axes.plot(
                points.crops, points[column], linestyle="none", marker=".", color=colours[side], markersize=4
            )  # fmt: skip
        axes.set(xscale="log", title=title, xlabel="crops to train on")
        axes.set_xticks(counts, [f"{count}" for count in counts])
        axes.minorticks_off()
    panels[0].set_ylabel("PSNR-Y over no transformer, dB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
