"""Figures and fits of the memory and runtime notebooks. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from taylorir.report.tables import measured_on, style_of, subplots

PARTS = {
    "parameters": "#0072B2",
    "gradients": "#56B4E9",
    "optimiser": "#7f7f7f",
    "buffers": "#CC79A7",
    "data": "#000000",
    "saved": "#D55E00",
    "transient": "#E69F00",
}


def memory_label(method: str, checkpoint: bool) -> str:
    """A method's name in tables, with what checkpointing adds."""
    return style_of(method).label + (", checkpointed" if checkpoint else "")


def memory_labels(rows: pd.DataFrame) -> list[str]:
    """``memory_label`` of each row, from its columns method and checkpoint."""
    return [memory_label(m, c) for m, c in zip(rows["method"], rows["checkpoint"], strict=True)]


def memory_matrix(
    rows: pd.DataFrame, column: str = "window_size", value: str = "peak_memory_mib"
) -> pd.DataFrame:
    """One line a method, one column a size: ready for ``report.table``.

    Args:
        rows: of ``memory_table``, one row a method and size.
        column: what the columns are.
        value: what the cells hold.
    """
    named = rows.assign(method=memory_labels(rows))
    matrix = named.pivot(index="method", columns=column, values=value)
    matrix = matrix.loc[list(dict.fromkeys(named["method"]))]
    matrix.columns = [str(name) for name in matrix.columns]
    return matrix.reset_index()


def plot_memory(rows: pd.DataFrame, x: str, *, xlabel: str, title: str = "") -> Figure:
    """Peak memory over ``x``, a line a method; dotted and hollow with checkpointing."""
    figure, axes = subplots(figsize=(8.4, 4.6))
    for (method, checkpoint), line in rows.groupby(["method", "checkpoint"], sort=False):
        style = style_of(method)
        line = line.sort_values(x)
        axes.plot(
            line[x],
            line["peak_bytes"] / 2**20,
            ":" if checkpoint else style.dashes,
            color=style.color,
            marker=style.marker,
            markerfacecolor="none" if checkpoint else style.color,
            label=memory_label(method, checkpoint),
        )
    axes.set(xlabel=xlabel, ylabel="peak memory, MiB", yscale="log", title=title)
    axes.set_xticks(sorted(set(rows[x])), [str(size) for size in sorted(set(rows[x]))])
    axes.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_parts(rows: pd.DataFrame, *, title: str = "") -> Figure:
    """Where the bytes go at the peak: a stacked bar a row."""
    labels = memory_labels(rows)
    figure, axes = subplots(figsize=(8.4, 0.42 * len(rows) + 1.4))
    left = np.zeros(len(rows))
    for part, color in PARTS.items():
        width = rows[f"{part}_bytes"].to_numpy() / 2**20
        axes.barh(labels, width, left=left, color=color, label=part)
        left += width
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="MiB at the peak", title=title)
    axes.legend(fontsize=8.5, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.06))
    return figure


def plot_relative(rows: pd.DataFrame, baseline: str, *, x: str = "lr_size", xlabel: str) -> Figure:
    """Peak memory over that of a baseline at the same ``x``, a line a method; below 1 it takes less.

    Args:
        rows: of ``memory_table``, one row a method and ``x``.
        baseline: the method that is 1.
    """
    figure, axes = subplots(figsize=(7.2, 4.0))
    peaks = rows.pivot(index=x, columns="method", values="peak_bytes")
    relative = peaks.div(peaks[baseline], axis=0)
    for method in dict.fromkeys(rows["method"]):
        style, line = style_of(method), relative[method].dropna()
        axes.plot(line, style.dashes, color=style.color, marker=style.marker, label=style.label)
    axes.set(xlabel=xlabel, ylabel=f"memory, {style_of(baseline).label} = 1", xscale="log", yscale="log")
    axes.set_xticks(peaks.index, [f"{size:g}" for size in peaks.index])
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def plot_savings(
    savings: pd.Series, natural: Mapping[str, pd.Series], published: Mapping[str, float]
) -> Figure:
    """How savings are spread, as a histogram, with published ones as lines and the natural reading as marks.

    Args:
        savings: all of them, as fractions; what costs more than twice as much is counted at -1.
        natural: savings of the natural reading by label, one a size.
        published: by label.
    """
    figure, (above, below) = subplots(2, figsize=(7.2, 3.8), sharex=True, height_ratios=(4, 1))
    edges = np.arange(-1, 1.0001, 0.05)
    above.hist(savings.clip(lower=-1), edges, color="#999999")
    for row, ((label, values), marker) in enumerate(zip(natural.items(), "oDs^", strict=False)):
        below.plot(values.clip(lower=-1), [row] * len(values), marker, linestyle="", label=label)
    for axes in (above, below):
        for label, value in published.items():
            axes.axvline(value, color="#D55E00", linewidth=1.2)
            if axes is above:
                place = {"transform": axes.get_xaxis_transform(), "va": "bottom", "ha": "center"}
                axes.text(value, 1.0, label, color="#D55E00", **place)
    below.set_yticks(range(len(natural)), natural)
    below.set_ylim(len(natural) - 0.5, -0.5)
    above.set_ylabel("comparisons")
    below.set_xlabel("saving; below 0 it takes more")
    below.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def share_near(savings: pd.Series, target: float, *, tolerance: float = 0.02) -> float:
    """The share of savings within ``tolerance`` of a target."""
    return float((savings - target).abs().le(tolerance).mean())


def plot_parity(rows: pd.DataFrame, parity: Mapping[int, float]) -> Figure:
    """Cost per token over that of softmax at 8 x 8, against the window; a panel a head width.

    Args:
        rows: of ``flops.parity_rows``.
        parity: by head width, the softmax window that costs what the efficient form costs.
    """
    figure, panels = subplots(1, len(parity), figsize=(3.6 * len(parity), 3.6), sharey=True)
    for axes, (head_dim, window) in zip(np.atleast_1d(panels), parity.items(), strict=True):
        for method in ("softmax_naive", "taylor_published", "taylor_efficient"):
            some = rows[(rows["head_dim"] == head_dim) & (rows["method"] == method)]
            style = style_of(method)
            label = {"softmax_naive": "softmax and Taylor direct"}.get(method, style.label)
            axes.plot(
                some["window_size"], some["relative_cost"], style.dashes, color=style.color, label=label
            )
        axes.axvline(window, color="#888888", linewidth=1, linestyle=":")
        axes.axhline(1, color="#888888", linewidth=0.8)
        axes.set(xlabel="side of the window", yscale="log", title=f"d = {head_dim}")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    np.atleast_1d(panels)[0].set_ylabel("cost per token, softmax 8 × 8 = 1")
    handles, labels = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def plot_limits(rows: pd.DataFrame, *, ylabel: str) -> Figure:
    """The largest size against the budget, a line a method; dotted and hollow with checkpointing."""
    figure, axes = subplots(figsize=(8.4, 4.2))
    for (method, checkpoint), line in rows.groupby(["method", "checkpoint"], sort=False):
        style = style_of(method)
        axes.plot(
            line["budget_gib"],
            line["largest"],
            ":" if checkpoint else style.dashes,
            color=style.color,
            marker=style.marker,
            markerfacecolor="none" if checkpoint else style.color,
            label=memory_label(method, checkpoint),
        )
    axes.set(xlabel="memory, GiB", ylabel=ylabel, xscale="log", yscale="log")
    budgets = sorted(set(rows["budget_gib"]))
    axes.set_xticks(budgets, [str(budget) for budget in budgets])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def slopes(rows: pd.DataFrame, *, smallest: float, value: str = "latency_ms") -> pd.DataFrame:
    """Slopes of log(time) against log(N) from ``smallest`` on, a row a method and mode; 1 is linear."""
    found = []
    for (method, mode), line in rows.dropna(subset=[value]).groupby(["method", "mode"], sort=False):
        line = line[line["num_tokens"] >= smallest]
        if len(line) > 1:
            fit = loglog_slope(line["num_tokens"], line[value])
            reach = {"from": int(line["num_tokens"].min()), "to": int(line["num_tokens"].max())}
            found.append({"method": method, "mode": mode, **reach, "slope": fit})
    return pd.DataFrame(found)


def under_load(rows: pd.DataFrame) -> str:
    """Where rows come from, and what else the machine did: of their columns load and priority."""
    priorities = ", ".join(dict.fromkeys(rows["priority"]))
    loads = dict.fromkeys(f"{load:.0f}" for load in (rows["load"].min(), rows["load"].max()))
    return f"{measured_on(rows)} Measured at priority {priorities}, under a load of {' to '.join(loads)}."


def roofline_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Where each method stands between memory and products, from forward rows of the table of attention.

    Args:
        rows: of ``cost.attention_table.speed_rows``.

    Returns:
        One row per method and shape: method, windows, num_heads, num_tokens, head_dim, intensity (operations
        per byte of q, k, v and y in float32), gflops (that were reached) and share (of the measured peak).
    """
    rows = rows[rows["pass"] == "forward"]
    shape = ["windows", "num_heads", "num_tokens", "head_dim"]
    of_bytes = 4 * 4 * rows[shape].prod(axis=1)
    frames = []
    for against, (method, name, operations) in {
        "taylor": ("taylor_efficient", "taylor_ms", "operations"),
        "sdpa": ("softmax_flash", "other_ms", "other_operations"),
        "softmax": ("softmax_own", "other_ms", "other_operations"),
        "published": ("taylor_published", "other_ms", "other_operations"),
    }.items():
        some = rows[rows["against"] == ("sdpa" if against == "taylor" else against)]
        point = some[shape].assign(method=method, intensity=some[operations] / of_bytes)
        frames.append(point.assign(gflops=some[operations] / some[name] / 1e6, peak=some["peak_gflops"]))
    points = pd.concat(frames, ignore_index=True)
    return points.assign(share=points["gflops"] / points.pop("peak"))


def plot_roofline(points: pd.DataFrame, *, peak_gflops: float, memory_gbs: float) -> Figure:
    """Operations per second over operations per byte, beneath what the machine can do.

    Args:
        points: of :func:`roofline_points`.
        peak_gflops: of a product of large matrices.
        memory_gbs: of a copy.
    """
    figure, axes = subplots(figsize=(8.4, 4.6))
    lowest, highest = points["intensity"].min() / 2, points["intensity"].max() * 2
    corner = peak_gflops / memory_gbs
    lowest = min(lowest, corner / 2)
    roof = [lowest * memory_gbs, peak_gflops, peak_gflops]
    axes.plot([lowest, corner, highest], roof, color="#444444", linewidth=1.5)
    for name, place, offset in (
        ("memory", (lowest, roof[0]), (14, 0)),
        ("products", (corner, roof[1]), (4, 5)),
    ):
        axes.annotate(name, place, xytext=offset, textcoords="offset points", color="#444444")
    widths = sorted(points["head_dim"].unique())
    for method, some in points.groupby("method", sort=False):
        style = style_of(method)
        for width, few in some.groupby("head_dim"):
            size = 5 + 3 * widths.index(width)
            label = style.label if width == widths[-1] else None
            axes.plot(
                few["intensity"], few["gflops"], style.marker, color=style.color, markersize=size, label=label
            )
    axes.set(xlabel="operations per byte of q, k, v and y", ylabel="10⁹ operations per second")
    axes.set(xscale="log", yscale="log")
    axes.legend(fontsize=8.5, loc="lower right")
    return figure


def loglog_slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Slope of log(time) against log(size) by least squares: 1 is linear, 2 is quadratic.

    Raises:
        ValueError: fewer than two sizes, or a size or time that is not positive.
    """
    sizes, times = np.asarray(sizes, float), np.asarray(times, float)
    if len(sizes) < 2 or sizes.shape != times.shape or not (np.all(sizes > 0) and np.all(times > 0)):
        raise ValueError("loglog_slope: expected two or more positive sizes with a positive time each")
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def measured_crossover(
    num_tokens: Sequence[float], direct: Sequence[float], efficient: Sequence[float]
) -> float:
    """The N from which the efficient form stays the faster one, interpolated in log N; NaN if it never is.

    Args:
        num_tokens: increasing N; direct, efficient: their times.
    """
    log_n = np.log(np.asarray(num_tokens, float))
    gain = np.log(np.asarray(direct, float) / np.asarray(efficient, float))  # above 0: efficient is faster
    if gain[-1] <= 0:
        return float("nan")
    behind = np.flatnonzero(gain <= 0)
    if not len(behind):
        return float(num_tokens[0])
    i = behind[-1]
    return float(np.exp(log_n[i] - gain[i] * (log_n[i + 1] - log_n[i]) / (gain[i + 1] - gain[i])))


def over_swinir(networks: pd.DataFrame, window: int = 48) -> pd.DataFrame:
    """Time of TaylorSwinIR-S over that of SwinIR-S in windows of 8, as both were timed in turn.

    Args:
        networks: rows of :mod:`taylorir.cost.network_runtime`.
        window: side of TaylorSwinIR's windows.

    Returns:
        One row a mode, size and border: mode, lr_size, border, then over SwinIR with softmax in our kernels
        (own) and with PyTorch's (pytorch), and the least that any attention could have: TaylorSwinIR with its
        attention left out, over SwinIR with PyTorch's (bound; NaN where that was not timed).
    """
    table = []
    for (mode, size), some in networks.groupby(["mode", "lr_size"], sort=False):
        time = some.set_index("network")["latency_ms"]
        pytorch = time["SwinIR-S, window 8, PyTorch's attention"]
        for border, ending in (("reflect", ""), ("ragged", ", ragged")):
            name = f"TaylorSwinIR-S, window {window}{ending}"
            if name in time:
                row = {"mode": mode, "lr_size": size, "border": border}
                row |= {"own": time[name] / time["SwinIR-S, window 8"], "pytorch": time[name] / pytorch}
                table.append(row | {"bound": time.get(f"{name}, attention left out", np.nan) / pytorch})
    return pd.DataFrame(table)
