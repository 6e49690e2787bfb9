"""Tables and figures of attribution: diffusion indices with intervals, maps, receptive fields. No torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import stats

from taylorir.report.evidence import BELOW_FLOOR, estimate, judge
from taylorir.report.tables import subplots

_COLORS = {"none": "#7F7F7F", "softmax": "#0072B2", "taylor": "#D55E00"}


class Box(NamedTuple):
    """A square of an LR image, in LR pixels."""

    top: float
    left: float
    size: float


def label(row: Mapping[str, object]) -> str:
    """A name for tables, from the columns attention, position, window_size, shift and trained of a row."""
    trained = "trained" if row["trained"] else "untrained"
    if row["attention"] == "none":
        return f"no transformer, {trained}"
    softmax = row["attention"] == "softmax"
    name = f"{'SwinIR' if softmax else 'TaylorSwinIR'} w{row['window_size']}"
    bias = ", no bias" if softmax and row["position"] == "none" else ""
    shift = "" if row["shift"] else ", no shift"
    return f"{name}{bias}{shift}, {trained}"


def labels_of(rows: pd.DataFrame) -> dict[str, str]:
    """The label of each network; where labels are equal, with the seed of its training that ends its name."""
    labels = {network: label(some.iloc[0]) for network, some in rows.groupby("network", sort=False)}
    count = Counter(labels.values())
    seeds = {network: re.search(r"_s(\d+)$", network) for network in labels}
    return {
        network: f"{text}, seed {seeds[network][1]}" if count[text] > 1 and seeds[network] else text
        for network, text in labels.items()
    }


def diffusion_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of each network with their 95% intervals over patches (Student's t).

    Returns:
        Columns network, label, attention, trained, patches; mean, low, high of the diffusion index;
        field_mean, field_low, field_high of the width of the effective receptive field. Trained networks come
        first, then those without a transformer, softmax, small windows, shifted ones; else the order is that
        of the rows.
    """
    found, labels = [], labels_of(rows)
    order = {"trained": False, "attention": True, "window_size": True, "shift": False}
    rows = rows.sort_values(list(order), ascending=list(order.values()), kind="stable")
    for network, some in rows.groupby("network", sort=False):
        first = some.iloc[0]
        found.append(
            {"network": network, "label": labels[network], "attention": first["attention"]}
            | {"trained": bool(first["trained"]), "patches": len(some)}
            | _interval(some["diffusion_index"].to_numpy())
            | {f"field_{key}": value for key, value in _interval(some["field_width"].to_numpy()).items()}
        )
    return pd.DataFrame(found)


def paired_differences(
    rows: pd.DataFrame,
    questions: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    column: str = "diffusion_index",
    *,
    below: Collection[str] = (),
) -> pd.DataFrame:
    """Differences on equal patches, judged over trainings and patches.

    Args:
        rows: of :mod:`taylorir.attribution.rows`.
        questions: the question, networks (one a seed of the training), and as many that are taken off. Pairs
            without rows are left out.
        column: what to compare: diffusion_index or field_width.
        below: networks that are no better than the same network without a transformer: what such a network
            looks at says nothing about its attention, so no question about it is judged.

    Returns:
        Columns question, first, second, images (patches, one an image), seeds, planned, those of
        :class:`taylorir.report.Estimate`, larger (share of patches where first is), barred (why it is not
        judged, or nothing), p_holm (corrected over the questions) and verdict: more, less, or see
        :func:`taylorir.report.judge`.
    """
    place = ["image", "crop_top", "crop_left", "lr_size", "patch_size", "fold", "rule", "seed"]
    wide = rows.pivot_table(index=place, columns="network", values=column)
    names = labels_of(rows)
    found = []
    for question, first, second in questions:
        pairs = [pair for pair in zip(first, second, strict=True) if set(pair) <= set(wide.columns)]
        gains = pd.DataFrame({pair: wide[pair[0]] - wide[pair[1]] for pair in pairs}).dropna()
        if len(gains):
            found.append(
                {
                    "question": question,
                    "first": ", ".join(names[one] for one, _ in pairs),
                    "second": ", ".join(names[other] for _, other in pairs),
                    "images": len(gains),
                    "seeds": len(pairs),
                    "planned": len(first),
                    **estimate(gains.to_numpy())._asdict(),
                    "larger": float((gains.mean(axis=1) > 0).mean()),
                    "barred": BELOW_FLOOR if any({*pair} & {*below} for pair in pairs) else "",
                }
            )
    return judge(pd.DataFrame(found), more="more", less="less") if found else pd.DataFrame()


def difference_text(differences: pd.DataFrame, question: str) -> str:
    """A row of :func:`paired_differences` as ``+1.23 (+1.10 to +1.36)``; what it cannot say in words."""
    rows = differences[differences.question == question]
    if rows.empty:
        return "(not measured)"
    row = rows.iloc[0]
    if row["seeds"] == 1:
        return f"{row['difference']:+.2f} (one training)"
    return f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"


def _interval(values: np.ndarray) -> dict[str, float]:
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan}
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return {"mean": mean, "low": float(low), "high": float(high)}


def plot_diffusion(summary: pd.DataFrame) -> Figure:
    """Mean diffusion index of each network with its interval; filled where the network is trained."""
    figure, axes = subplots(figsize=(7.2, 0.42 * len(summary) + 1.2))
    for place, row in enumerate(summary.to_dict("records")):
        color = _COLORS[row["attention"]]
        axes.plot([row["low"], row["high"]], [place, place], color=color)
        axes.plot(row["mean"], place, "o", color=color, markerfacecolor=color if row["trained"] else "white")
    axes.set_yticks(range(len(summary)), summary["label"])
    axes.invert_yaxis()
    axes.set(xlabel="diffusion index, mean and 95% interval")
    return figure


def plot_maps(picture: np.ndarray, maps: Mapping[str, np.ndarray], box: Box, *, columns: int = 4) -> Figure:
    """The LR picture with the patch, then an attribution map of each network; the square root is drawn.

    Args:
        picture: uint8 ``[H, W, 3]``.
        maps: by title, ``[H, W]``, 0..1.
        box: the patch.
    """
    lines = math.ceil((len(maps) + 1) / columns)
    figure, grid = subplots(lines, columns, figsize=(2.2 * columns, 2.5 * lines), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid.flat[0].imshow(picture)
    grid.flat[0].set_title("LR and patch", fontsize=9, loc="center", weight="normal")
    for axes, (title, values) in zip(grid.flat[1:], maps.items(), strict=False):
        axes.imshow(np.sqrt(values / values.max()), cmap="magma", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9, loc="center", weight="normal")
    for axes in grid.flat[: len(maps) + 1]:
        corner = (box.left - 0.5, box.top - 0.5)
        axes.add_patch(Rectangle(corner, box.size, box.size, fill=False, edgecolor="#00C0C0", linewidth=1.2))
    return figure


def plot_fields(fields: Mapping[str, np.ndarray], widths: Mapping[str, int], *, columns: int = 4) -> Figure:
    """Effective receptive fields on a logarithmic scale, with the square that holds most of each.

    Args:
        fields: by title, ``[H, W]``, sums to 1.
        widths: side of the square, by title.
    """
    lines = math.ceil(len(fields) / columns)
    figure, grid = subplots(lines, columns, figsize=(2.2 * columns, 2.5 * lines), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, field) in zip(grid.flat, fields.items(), strict=False):
        axes.imshow(np.log10(np.maximum(field / field.max(), 1e-6)), cmap="magma", vmin=-6, vmax=0)
        axes.set_title(title, fontsize=9, loc="center", weight="normal")
        middle, side = [(length - 1) / 2 for length in field.shape], widths[title]
        corner = (middle[1] - side / 2, middle[0] - side / 2)
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="#00C0C0", linewidth=1.2))
    return figure
