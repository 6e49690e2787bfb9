"""Letters of a figure that can be read where the book shows it, though a wide figure is made small to fit."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

LEAST_PIXELS = 9.2
"""Least size of a font as it is shown, in CSS pixels."""
PAGE_PIXELS = 690
"""Width of a figure on a page, in a window of 1280 pixels."""
BOX_PIXELS = 325
"""The same in the box at the head of a chapter."""


def enlarge_letters(figure: Figure, shown: float = PAGE_PIXELS) -> None:
    """Enlarge the letters that would be too small, and leave all others as they are.

    Args:
        figure: of any width.
        shown: width at which it is shown, in CSS pixels.
    """
    least = LEAST_PIXELS * figure.get_figwidth() * 72 / shown
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), least))
    for axes in figure.axes:  # which makes its ticks anew when it is drawn
        for axis, name in ((axes.xaxis, "xtick"), (axes.yaxis, "ytick")):
            size = Text(fontsize=matplotlib.rcParams[f"{name}.labelsize"]).get_fontsize()
            if size < least:
                axis.set_tick_params(labelsize=least)
