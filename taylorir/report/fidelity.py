"""Figures of the theory notebooks: Taylor polynomials, fidelity, crossovers, numerics. Sees no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taylorir.report.cost import measured_crossover
from taylorir.report.tables import subplots

ORDER_LOOK = {1: ("#7f7f7f", ":"), 2: ("#D55E00", "-"), 4: ("#009E73", "--"), 6: ("#CC79A7", "-.")}
DTYPE_LOOK = {"float32": ("#0072B2", "o"), "float16": ("#D55E00", "s"), "bfloat16": ("#009E73", "^")}
FORM_DASHES = {"direct": "--", "efficient": "-", "naive direct": ":", "naive efficient": "-."}
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_LOGARITHMIC = ("total_variation", "kl", "output_error")
KIND_LOOK = {
    "softmax of q k^T / sqrt(d)": ("#0072B2", "-"),
    "softmax of the cosines": ("#56B4E9", "--"),
    "Taylor, order 2": ("#D55E00", "-"),
}


def plot_polynomials(*, largest: float = 4.0, orders: tuple[int, ...] = (1, 2, 4, 6)) -> Figure:
    """Left: the exponential and its Taylor polynomials. Right: their ratio, on which every bound rests."""
    x = np.linspace(-largest, largest, 400)
    figure, (left, right) = subplots(1, 2, figsize=(9.2, 3.8))
    left.plot(x, np.exp(x), color="#0072B2", label="exp")
    for order in orders:
        color, dashes = ORDER_LOOK[order]
        values = np.polyval([1 / math.factorial(n) for n in range(order, -1, -1)], x)
        left.plot(x, values, dashes, color=color, label=f"order {order}")
        if order % 2 == 0:
            right.plot(x, values * np.exp(-x), dashes, color=color, label=f"order {order}")
    left.set(
        ylim=(-1, 10), xlabel="score x", ylabel="weight before normalisation", title="T(x) beside exp(x)"
    )
    left.axhline(0, color="#888888", linewidth=0.8)
    left.axvspan(-1, 1, color="#888888", alpha=0.15, linewidth=0)
    left.legend()
    right.axhline(1, color="#0072B2", label="exp")
    right.axvspan(-1, 1, color="#888888", alpha=0.15, linewidth=0)
    right.set(yscale="log", xlabel="score x", ylabel="T(x) exp(-x)", title="The ratio never rises")
    right.legend()
    return figure


def plot_total_variation_bound(points: pd.DataFrame, curve: pd.DataFrame) -> Figure:
    """Measured total variation beneath its bound, one panel an order.

    Args:
        points: columns source, order, max_score, total_variation_max (one point each).
        curve: columns order, max_score, total_variation_bound.
    """
    orders = sorted(points["order"].unique())
    figure, panels = subplots(
        1, len(orders), figsize=(3.5 * len(orders) + 0.4, 4.2), sharey=True, squeeze=False
    )
    markers = ["o", "s", "^", "D", "v", "P"]
    for axes, order in zip(panels[0], orders, strict=True):
        line = curve[curve["order"] == order]
        axes.plot(line["max_score"], line["total_variation_bound"], color="#444444", label="bound")
        axes.fill_between(
            line["max_score"], line["total_variation_bound"], 1.5, color="#888888", alpha=0.15, linewidth=0
        )
        for marker, (source, some) in zip(
            markers, points[points["order"] == order].groupby("source"), strict=False
        ):
            axes.plot(
                some["max_score"], some["total_variation_max"], marker, linestyle="", label=source, alpha=0.8
            )
        axes.set(
            xscale="log", yscale="log", xlabel="largest |score|", title=f"order {order}", ylim=(1e-7, 1.5)
        )
    panels[0][0].set_ylabel("total variation, largest over queries")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def plot_fidelity(rows: pd.DataFrame, metrics: Mapping[str, str], *, x: str = "temperature") -> Figure:
    """One panel a metric over ``x``, one line an order; rows of equal x and order are drawn at their mean."""
    columns = min(3, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    figure, panels = subplots(lines, columns, figsize=(3.4 * columns, 2.9 * lines), squeeze=False)
    for axes in panels.flat[len(metrics) :]:
        axes.set_axis_off()
    for axes, (metric, label) in zip(panels.flat, metrics.items(), strict=False):
        for order, some in rows.groupby("order"):
            color, dashes = ORDER_LOOK[order]
            line = some.groupby(x)[metric].mean()
            axes.plot(
                line.index,
                line.values,
                dashes,
                color=color,
                marker="o",
                markersize=3.5,
                label=f"order {order}",
            )
        axes.set(xlabel=x, title=label, yscale="log" if metric in _LOGARITHMIC else "linear")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0][0].legend(fontsize=9)
    return figure


def plot_weight_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Sorted attention weights, heavy to light, times the number of keys; one panel an input.

    Args:
        curves: by panel title, columns weights, rank, weight.
    """
    figure, panels = subplots(1, len(curves), figsize=(3.7 * len(curves), 3.6), sharey=True, squeeze=False)
    for axes, (title, rows) in zip(panels[0], curves.items(), strict=True):
        for kind, (color, dashes) in KIND_LOOK.items():
            line = rows[rows["weights"] == kind]
            axes.plot(line["rank"], line["weight"], dashes, color=color, label=kind)
        axes.axhline(1, color="#888888", linewidth=0.8, linestyle=":")
        axes.set(xlabel="share of keys that are heavier", yscale="log", title=title)
    panels[0][0].set_ylabel("weight x number of keys (1 = uniform)")
    panels[0][0].legend(fontsize=9)
    return figure


def crossover_ratios(rows: pd.DataFrame, *, value: str = "latency_ms") -> pd.DataFrame:
    """Time of the direct form over that of each efficient one: columns head_dim, num_tokens, method, ratio.

    Args:
        rows: columns head_dim, num_tokens, method (one of them "taylor_direct"), and the times.
        value: the column of times.
    """
    wide = rows.pivot_table(index=["head_dim", "num_tokens"], columns="method", values=value)
    ratios = wide.drop(columns="taylor_direct").rdiv(wide["taylor_direct"], axis=0)
    return ratios.stack().rename("ratio").reset_index()


def measured_crossovers(ratios: pd.DataFrame) -> pd.DataFrame:
    """The N from which the efficient form stays faster: columns head_dim, method, crossover.

    Interpolated between the two measured N on a logarithmic scale; the smallest N measured where it always
    is faster, missing where it never is.
    """
    found = []
    for (head_dim, method), some in ratios.sort_values("num_tokens").groupby(["head_dim", "method"]):
        times = some["ratio"].to_numpy(), np.ones(len(some))  # of the direct form, of the efficient one
        crossover = measured_crossover(some["num_tokens"].to_numpy(), *times)
        found.append({"head_dim": head_dim, "method": method, "crossover": crossover})
    return pd.DataFrame(found)


def plot_crossovers(ratios: pd.DataFrame, theory: pd.DataFrame) -> Figure:
    """Time of the direct form over that of the efficient ones, against N; 1 is the crossover.

    Args:
        ratios: as :func:`crossover_ratios` gives them; the published form is dashed.
        theory: columns head_dim, crossover: by operations of the published form, a vertical line in the
            colour of its lines.
    """
    figure, axes = subplots()
    for (head_dim, some), color in zip(ratios.groupby("head_dim"), _CYCLE, strict=False):
        for method, line in some.groupby("method"):
            published = method == "taylor_published"
            label = f"d = {head_dim}, {'published' if published else 'ours'}"
            look = {"color": color, "marker": "^" if published else "P", "label": label}
            axes.plot(line["num_tokens"], line["ratio"], "--" if published else "-", **look)
        for mark in theory.loc[theory["head_dim"] == head_dim, "crossover"]:
            axes.axvline(mark, color=color, linewidth=1, linestyle=":")
    axes.axhline(1, color="#888888", linewidth=1)
    axes.set(xlabel="tokens N", ylabel="time of direct / time of efficient", yscale="log")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(fontsize=9)
    return figure


def plot_numerics(rows: pd.DataFrame, *, x: str = "num_tokens", xlabel: str = "tokens N") -> Figure:
    """Relative error against float64 over ``x``; a colour a dtype, a dash a form.

    Args:
        rows: columns dtype, form ("direct", "efficient", and each "naive"), quantity, error and ``x``; an
            error that is not finite is left out.
    """
    quantities = list(dict.fromkeys(rows["quantity"]))
    figure, panels = subplots(
        1, len(quantities), figsize=(4.4 * len(quantities) + 0.6, 4.8), sharey=True, squeeze=False
    )
    rows = rows[np.isfinite(rows["error"])]
    for axes, quantity in zip(panels[0], quantities, strict=True):
        for (dtype, form), some in rows[rows["quantity"] == quantity].groupby(["dtype", "form"]):
            color, marker = DTYPE_LOOK[dtype]
            line = some.groupby(x)["error"].median()
            axes.plot(line.index, line.values, FORM_DASHES[form], color=color, marker=marker)
        axes.set(xlabel=xlabel, title=quantity, yscale="log")
        axes.set_xscale("log", base=2 if x == "num_tokens" else 10)
        if x == "num_tokens":
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0][0].set_ylabel("relative error against float64")
    looks = [(name, DTYPE_LOOK[name], "-") for name in sorted(set(rows["dtype"]))]
    looks += [(name, ("#444444", ""), dashes) for name, dashes in FORM_DASHES.items()]
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle=dashes, label=name)
        for name, (color, marker), dashes in looks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    return figure
