"""The picture of the README: memory of one training step against the window, out of committed rows.

``python -m taylorir.report.overview book/_static/readme.svg data/results/memory_m.csv
data/results/memory_bias.csv``
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from taylorir.report.tables import save_figure, style_of, use_style

LABEL_SHIFT = {
    "softmax_naive": 8,
    "softmax_fused": -5,
    "taylor_published": 0,
    "softmax_flex": 12,
    "softmax_flash": 0,
    "taylor_efficient": -12,
}  # points, by method
SETTING = {"model": "M", "upscale": 2, "mode": "train", "checkpoint": False, "lr_size": 96}


def plot_overview(rows: pd.DataFrame) -> Figure:
    """Peak memory in GiB against the side of the window, one line a method, each named at its end.

    Args:
        rows: of memory tables; those of ``SETTING`` count, at windows that divide its image.
    """
    for column, value in SETTING.items():
        rows = rows[rows[column] == value]
    rows = rows[SETTING["lr_size"] % rows.window_size == 0]
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
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.set_xlabel("side of the window, tokens")
    ticks = [4, 8, 16, 32, 64]
    axes.set_yticks(ticks, [f"{tick} GiB" for tick in ticks])
    axes.set_ylim(2.5, 128)
    axes.minorticks_off()
    axes.set_title("Memory of one training step, against the size of the attention window")
    return figure


def main(picture: str, *tables: str) -> None:
    use_style()
    figure = plot_overview(pd.concat(map(pd.read_csv, tables)))
    figure.set_facecolor("white")
    save_figure(figure, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
