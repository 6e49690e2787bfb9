"""The picture of the README: memory of one training step against the window, out of committed rows.

``python -m taylorir.report.overview data/results/memory_overview.csv book/_static/readme.svg``
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from taylorir.report.tables import save_figure, style_of, use_style

LABEL_SHIFT = {
    "softmax_naive": 7,
    "softmax_fused": -7,
    "softmax_flash": 8,
    "taylor_efficient": -8,
}  # points, by method


def plot_overview(rows: pd.DataFrame) -> Figure:
    """Peak memory in GiB against the side of the window, one line a method, each named at its end.

    Args:
        rows: one setting (model, LR size, upscale, mode) with columns method, window_size, peak_memory_mib.
    """
    figure = Figure(figsize=(7.6, 3.5))
    axes = figure.subplots()
    for method, shift in LABEL_SHIFT.items():
        style = style_of(method)
        line = rows[rows.method == method].sort_values("window_size")
        gib = line.peak_memory_mib / 1024
        axes.plot(line.window_size, gib, style.dashes, color=style.color, marker=style.marker)
        last = (line.window_size.iloc[-1], gib.iloc[-1])
        text = f"{style.label}: {last[1]:.1f} GiB"
        axes.annotate(text, last, (14, shift), textcoords="offset points", va="center")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    sides = sorted(rows.window_size.unique())
    axes.set_xticks(sides, [f"{side}×{side}" for side in sides])
    ticks = [4, 8, 16, 32, 64]
    axes.set_yticks(ticks, [f"{tick} GiB" for tick in ticks])
    axes.set_ylim(2.5, 128)
    axes.minorticks_off()
    axes.set_title("Memory of one training step, against the size of the attention window")
    return figure


def main(table: str, picture: str) -> None:
    use_style()
    figure = plot_overview(pd.read_csv(table))
    figure.set_facecolor("white")
    save_figure(figure, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
