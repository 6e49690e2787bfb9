"""Tables and figures of the chapter on the networks: stages, and size and cost beside published ones."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from taylorir.report.tables import style_of

_TITLES = {
    "network": "the network",
    "RSTB": "inside an RSTB",
    "block": "inside a block",
    "attention": "inside the attention",
}
_SKIPS = {
    "network": (("conv_first", "conv_after_body"),),
    "RSTB": (("blocks.0", "conv"),),
    "block": (("norm1", "attn"), ("norm2", "mlp")),
}
_COLORS = {"Conv2d": "#56B4E9", "Sequential": "#56B4E9", "LayerNorm": "#bbbbbb", "Linear": "#009E73"}
_OTHER_COLOR = "#E69F00"
_WIDTH, _HEIGHT = 0.86, 0.5


def plot_architecture(stages: pd.DataFrame) -> Figure:
    """The stages of a network, level below level; a box gives name, class, parameters and output shape.

    Equal stages one after the other share a box, or the letters would be too small to read.

    Args:
        stages: as :func:`taylorir.networks.anatomy.stage_rows` gives them.
    """
    boxes = {level: _boxes(stages[stages["level"] == level]) for level in _TITLES}
    boxes = {level: inside for level, inside in boxes.items() if inside}
    figure = Figure(figsize=(9.4, 1.75 * len(boxes)))
    longest = max(map(len, boxes.values()))
    for (level, inside), axes in zip(boxes.items(), figure.subplots(len(boxes), 1), strict=True):
        _draw_level(axes, inside, _SKIPS.get(level, ()))
        axes.set(xlim=(-0.55, longest - 0.45), ylim=(-0.42, 0.55))
        axes.set_title(_TITLES[level], loc="left")
        axes.axis("off")
    return figure


class _Box(NamedTuple):
    """Equal stages that follow each other."""

    stage: str
    kind: str
    label: str


def _boxes(stages: pd.DataFrame) -> list[_Box]:
    boxes = []
    equal = ["kind", "parameters", "shape"]
    for (kind, parameters, shape), run in itertools.groupby(
        stages.itertuples(), key=lambda stage: tuple(getattr(stage, name) for name in equal)
    ):
        names = [stage.stage for stage in run]
        name, count, each = names[0], "", ""
        if len(names) > 1:
            name, count, each = f"{names[0]} to {names[-1].rpartition('.')[2]}", f"{len(names)} × ", " each"
        label = f"{name}\n{count}{_short(kind)}\n{parameters:,}{each}\n{shape.replace(' x ', ' × ')}"
        boxes.append(_Box(names[0], kind, label))
    return boxes


def _draw_level(axes: Axes, boxes: list[_Box], skips: tuple[tuple[str, str], ...]) -> None:
    place = {box.stage: index for index, box in enumerate(boxes)}
    for index, box in enumerate(boxes):
        axes.add_patch(
            FancyBboxPatch(
                (index - _WIDTH / 2, -_HEIGHT / 2),
                _WIDTH,
                _HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.04",
                facecolor=_COLORS.get(box.kind, _OTHER_COLOR),
                alpha=0.35,
                edgecolor="none",
            )
        )
        axes.text(index, 0, box.label, ha="center", va="center", fontsize=9, linespacing=1.35)
        if index:
            _arrow(axes, (index - 1 + _WIDTH / 2, 0), (index - _WIDTH / 2, 0), "arc3")
    for start, stop in skips:
        if start in place and stop in place:
            left, right = place[start], place[stop]
            before = left if start == "conv_first" else left - 0.5
            height = 0.3 / max(right - before + 0.5, 1)
            _arrow(axes, (before, _HEIGHT / 2), (right + 0.5, _HEIGHT / 2), f"arc3,rad=-{height:.3f}")


def _arrow(axes: Axes, start: tuple[float, float], stop: tuple[float, float], style: str) -> None:
    axes.add_patch(
        FancyArrowPatch(start, stop, arrowstyle="-|>", mutation_scale=6, connectionstyle=style, linewidth=0.8)
    )


def _short(kind: str) -> str:
    names = {
        "TaylorWindowAttention": "TaylorShift",
        "WindowAttention": "softmax",
        "SwinTransformerBlock": "Swin block",
    }
    return names.get(kind, kind)


def plot_costs(rows: pd.DataFrame) -> Figure:
    """Multiplications of one forward pass, a bar a network and window.

    Args:
        rows: columns variant, window_tokens and gmacs, e.g. of
            :func:`taylorir.networks.anatomy.model_rows`.
    """
    figure = Figure(figsize=(7.2, 0.5 * len(rows) + 1.0))
    axes = figure.subplots()
    sides = [math.isqrt(tokens) for tokens in rows["window_tokens"]]
    names = [f"{name}\nwindow {side} × {side}" for name, side in zip(rows["variant"], sides, strict=True)]
    look = [style_of("taylorswinir" if name.startswith("taylor") else "swinir") for name in rows["variant"]]
    bars = axes.barh(names, rows["gmacs"], color=[style.color for style in look])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="GMACs of one forward pass")
    return figure


def beside_published(rows: pd.DataFrame, published: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Counted sizes or costs beside the published ones: one row a published value.

    Args:
        rows: columns variant ("swinir_s_x2"), lr_height, lr_width and the quantity, e.g. of
            :func:`taylorir.networks.anatomy.model_rows`.
        published: columns model ("swinir_s"), upscale, quantity, value, lr_height, lr_width, source, note.
        quantity: "parameters" or "gmacs".

    Returns:
        Columns variant, counted, published, difference (of published to counted, a fraction), source, note;
        for parameters also without_bias, what is left without the tables of the position bias.
    """
    wanted = published[published["quantity"] == quantity].copy()
    wanted["variant"] = wanted["model"] + "_x" + wanted["upscale"].astype(str)
    keys = ["variant"] if quantity == "parameters" else ["variant", "lr_height", "lr_width"]
    columns = [*keys, quantity, *(["parameters_bias"] if quantity == "parameters" else [])]
    joined = wanted.merge(rows[columns], on=keys)
    found = joined[["variant"]].assign(counted=joined[quantity], published=joined["value"])
    found["difference"] = found["published"] / found["counted"] - 1
    if quantity == "parameters":
        found["without_bias"] = found["counted"] - joined["parameters_bias"]
        found["published"] = found["published"].astype(int)
    return found.assign(source=joined["source"], note=joined["note"].fillna(""))
