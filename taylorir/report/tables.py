"""Measured rows become tables, figures and glued numbers; the only file that knows how these look.

It sees DataFrames and arrays, never torch. A figure of lines becomes an SVG, one that shows pictures a PNG;
the book's style sheet turns the first dark with the page and lays the second on a light card. The plot
functions return a Figure that pyplot does not know: a notebook shows it once, as the last line of a cell.
"""

from __future__ import annotations

import html
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from taylorir.report.letters import enlarge_letters


class MethodStyle(NamedTuple):
    """How one method looks in every figure: told apart by colour, and without colour by marker and dash."""

    label: str
    color: str
    marker: str
    dashes: str


# The colours are Okabe and Ito's, which stay apart for colour-blind readers.
METHODS: dict[str, MethodStyle] = {
    "bicubic": MethodStyle("bicubic", "#7f7f7f", "x", ":"),
    "softmax_naive": MethodStyle("softmax, as in SwinIR", "#0072B2", "o", "-"),
    "softmax_fused": MethodStyle("softmax, fused, with bias", "#56B4E9", "s", "--"),
    "softmax_flash": MethodStyle("softmax, flash, no bias", "#009E73", "D", "-."),
    "softmax_own": MethodStyle("softmax, our kernels, no bias", "#332288", "*", ":"),
    "softmax_rib": MethodStyle("softmax, flash, low-rank bias", "#882255", "<", "--"),
    "softmax_flex": MethodStyle("softmax, FlexAttention, with bias", "#666600", "X", ":"),
    "taylor_direct": MethodStyle("Taylor, direct", "#E69F00", "v", "--"),
    "taylor_published": MethodStyle("Taylor, efficient as published", "#CC79A7", "^", "-."),
    "taylor_efficient": MethodStyle("Taylor, efficient, ours", "#D55E00", "P", "-"),
    "swinir": MethodStyle("SwinIR", "#0072B2", "o", "-"),
    "taylorswinir": MethodStyle("TaylorSwinIR", "#D55E00", "P", "-"),
}

#: The columns that ``taylorir.rows.measured`` adds to a row; tables leave them out and say them once,
#: below.
PROVENANCE = ("device", "dtype", "torch", "commit", "seed", "date")

_CHANGED = " (+: with changes not yet committed)"
_STYLE = {
    "figure.figsize": (7.2, 4.0),
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "text.color": "#222222",
    "legend.frameon": False,
    "lines.linewidth": 1.9,
    "lines.markersize": 5.5,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    "svg.hashsalt": "taylorir",
}


def use_style() -> None:
    """Set fonts, colours and output formats for the session; call it once, before the first figure.

    In a notebook, figures that show an image or a mesh are sent as PNG, all others as SVG that is the same
    whenever the data are.
    """
    matplotlib.rcParams.update(_STYLE)
    okabe_ito = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f7f7f", "#000000"]
    matplotlib.rcParams["axes.prop_cycle"] = plt.cycler(color=okabe_ito)
    shell = _ipython_shell()
    if shell is None or getattr(shell, "display_formatter", None) is None:
        return
    plt.switch_backend(matplotlib.get_backend())  # the inline backend sets its own formats when it is loaded
    formatters = shell.display_formatter.formatters
    formatters["image/svg+xml"].for_type(
        Figure, lambda figure: None if _shows_pictures(figure) else _svg(figure)
    )
    formatters["image/png"].for_type(Figure, lambda figure: _png(figure) if _shows_pictures(figure) else None)


def style_of(method: str) -> MethodStyle:
    """The fixed look of a method.

    Raises:
        ValueError: for a name that is not in ``METHODS``.
    """
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    return METHODS[method]


# ---------------------------------------------------------------------------------------------------- tables


class Table:
    """An HTML table with its caption and note, as ``table`` makes it. Shown by a notebook as it stands."""

    def __init__(self, markup: str, plain: str) -> None:
        self.markup = markup
        self.plain = plain

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.plain


def table(
    rows: pd.DataFrame,
    formats: Mapping[str, str] | None = None,
    caption: str = "",
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    best: Mapping[str, str] | None = None,
    note: str | None = None,
    name: str = "",
) -> Table:
    """A table that reads well in the light and in the dark theme.

    Args:
        rows: one row of the table each; the index is not shown (``reset_index()`` if it matters).
        formats: format specification by column of ``rows``, e.g. ``{"psnr_y": ".2f", "saving": ".0%"}``.
        caption: one sentence above the table: what it shows, with units.
        columns: what to show, in order; a mapping also gives each column its heading. All but the provenance
            columns if left out. A cell that names one of ``METHODS`` shows its label.
        best: ``{"psnr_y": "max", "peak_memory_mib": "min"}`` sets the best value of a column in bold.
        note: small print below; by default where the rows were measured, if they say so.
        name: by which prose refers to the table, e.g. "tab-memory" in ``{numref}``.

    Raises:
        ValueError: for a column that the rows do not have, or a ``best`` that is neither "max" nor "min".
    """
    target = f' id="{name}"' if name else ""
    if columns is None:
        columns = [name for name in rows.columns if name not in PROVENANCE]
    headings = dict(columns) if isinstance(columns, Mapping) else {name: str(name) for name in columns}
    formats, best = dict(formats or {}), dict(best or {})
    for name in (*headings, *formats, *best):
        if name not in rows.columns:
            raise ValueError(f"table: no column {name!r}; the rows have {', '.join(map(str, rows.columns))}")
    if note is None:
        note = measured_on(rows)

    winners = {name: _winner(rows[name], which) for name, which in best.items()}
    numeric = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in headings}
    side = {name: ' class="number"' if numeric[name] else "" for name in headings}
    head = "".join(f'<th scope="col"{side[name]}>{html.escape(text)}</th>' for name, text in headings.items())
    body, plain = [], [list(headings.values())]
    for index in range(len(rows)):
        cells, texts = [], []
        for name in headings:
            value = rows[name].iloc[index]
            text = _cell_text(value, formats.get(name))
            shown = (
                f"<strong>{html.escape(text)}</strong>"
                if _is(value, winners.get(name))
                else html.escape(text)
            )
            cells.append(f"<td{side[name]}>{shown}</td>")
            texts.append(text)
        body.append(f"<tr>{''.join(cells)}</tr>")
        plain.append(texts)
    markup = (
        f'<div class="tir-table"{target}><table>'
        + (f"<caption>{html.escape(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        + (f"<p>{html.escape(note)}</p>" if note else "")
        + "</div>"
    )
    return Table(markup, "\n".join([caption, *("  ".join(line) for line in plain), note]).strip())


def measured_on(rows: pd.DataFrame) -> str:
    """One sentence on where rows come from, out of their provenance columns; empty when they have none."""
    parts = [
        ", ".join(dict.fromkeys(str(value) for value in rows[name]))
        for name in ("device", "dtype", "date", "commit")
        if name in rows.columns and len(rows)
    ]
    if not parts:
        return ""
    changed = "commit" in rows.columns and rows["commit"].astype(str).str.endswith("+").any()
    return f"Measured on {'; '.join(parts)}{_CHANGED if changed else ''}."


def _winner(values: pd.Series, which: str) -> float:
    if which not in ("max", "min"):
        raise ValueError(f"best: got {which!r} for column {values.name!r}, expected 'max' or 'min'")
    return values.max() if which == "max" else values.min()


def _is(value: Any, winner: float | None) -> bool:
    return winner is not None and value == winner


def _cell_text(value: Any, specification: str | None) -> str:
    if isinstance(value, str):
        return METHODS[value].label if value in METHODS else value
    if pd.isna(value):
        return "–"
    return without_sign_of_zero(format(value, specification)) if specification else str(value)


def without_sign_of_zero(text: str) -> str:
    """A number as text, without a sign where its digits are all zero: "0.00" for "-0.00" and "+0.00"."""
    return text[1:] if re.fullmatch(r"[-+]0(\.0+)?%?", text) else text


# -------------------------------------------------------------------------------------------------- figures


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the same data give the same bytes. The file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    form = path.suffix.removeprefix(".")
    part = path.with_name(f".{path.name}.part")
    with matplotlib.rc_context({"svg.hashsalt": "taylorir"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None} if form == "png" else None
        figure.savefig(part, format=form, bbox_inches="tight", metadata=metadata)
    os.replace(part, path)
    return path


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] | None = None, **options: Any):
    """A figure and its axes, as of pyplot, but unknown to it: a notebook shows it once, as a cell's value.

    Args:
        rows, columns: of the grid of axes.
        figsize: width and height in inches; the style's own if left out.
        options: of ``Figure.subplots``, e.g. ``sharey`` and ``squeeze``.
    """
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def legend_below(figure: Figure) -> None:
    """Put the legend of a figure below it, where it hides no data, in as many columns as the width takes.

    The legends of single axes become one. A figure without any stays as it is.
    """
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    entries = {}
    for legend in legends:
        drawn = (text.get_text() for text in legend.get_texts())
        entries = dict(zip(drawn, legend.legend_handles, strict=True)) | entries
        legend.remove()
    for axes in figure.axes:  # what a legend drew of an error bar is half of it
        handles = zip(*axes.get_legend_handles_labels(), strict=True)
        entries |= {label: handle for handle, label in handles if label in entries}
    for columns in range(len(entries), 0, -1):
        place = {"loc": "outside lower center", "ncols": columns, "fontsize": 10}
        legend = figure.legend(entries.values(), entries, **place)
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def plot_methods(
    rows: pd.DataFrame,
    x: str,
    y: str,
    *,
    method: str = "method",
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = True,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """One line a method over ``x``, in the fixed colours; equal ``x`` are drawn at their median.

    Args:
        rows: tidy rows with the columns ``x``, ``y`` and ``method``; a missing ``y`` is left out.
        marks: vertical lines by label, e.g. ``{"N0": crossover_flops(30)}``.
        log: logarithmic axes.
    """
    figure = Figure()
    axes = figure.subplots()
    rows = rows.dropna(subset=[y])
    for name in [name for name in METHODS if name in set(rows[method])]:
        style = style_of(name)
        line = rows[rows[method] == name].groupby(x)[y].median()
        axes.plot(
            line.index, line.values, style.dashes, color=style.color, marker=style.marker, label=style.label
        )
    if log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    for label, position in (marks or {}).items():
        axes.axvline(position, color="#888888", linewidth=1, linestyle=":")
        axes.text(position, 1.0, f" {label}", transform=axes.get_xaxis_transform(), va="top", color="#555555")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend()
    return figure


def plot_pictures(
    pictures: Mapping[str, np.ndarray], *, columns: int | None = None, height: float = 2.4
) -> Figure:
    """Pictures side by side, each under its name.

    Args:
        pictures: uint8 RGB ``[H, W, 3]``, or floats ``[H, W]`` which are drawn in the colour map, by title.
        columns: how many in one line; all if left out.
        height: of one picture, in inches.
    """
    columns = columns or len(pictures)
    lines = math.ceil(len(pictures) / columns)
    shapes = [np.asarray(picture).shape for picture in pictures.values()]
    width = height * max(shape[1] / shape[0] for shape in shapes)
    figure = Figure(figsize=(width * columns, (height + 0.35) * lines))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, picture) in zip(grid.flat, pictures.items(), strict=False):
        axes.imshow(picture)
        axes.set_title(title, fontsize=10, loc="center", weight="normal")
    return figure


def _shows_pictures(figure: Figure) -> bool:
    return any(axes.images or any(isinstance(c, QuadMesh) for c in axes.collections) for axes in figure.axes)


def _svg(figure: Figure) -> str:
    enlarge_letters(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    enlarge_letters(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _ipython_shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()
