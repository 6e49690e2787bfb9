"""Numbers, words and figures that a notebook glues, for its prose and for other pages. No torch."""

from __future__ import annotations

import contextlib
import math
import numbers
import textwrap
from typing import Any

from matplotlib.figure import Figure

from taylorir.report.letters import BOX_PIXELS, enlarge_letters
from taylorir.report.tables import legend_below

#: Characters of a label beside an axis, above which it is broken into lines.
WIDEST_LABEL = 28
#: Height of a line of a label, as a part of its font's size.
LINE_SPACING = 1.3
#: Inches below the axes of a figure in a box, for ticks, a label and a legend.
ROOM_BELOW = 1.0
#: Metadata of an output that only those see who run a notebook by hand; the book is built without it.
BY_HAND = "taylorir_by_hand"
#: What precedes the MIME type of what is stored and not shown, by papermill's convention.
RECORD = "application/papermill.record/"


def glue_values(**values: Any) -> None:
    """Glue numbers and words by name, for ``{glue:text}`` in the prose of this notebook and of other pages.

    A notebook that is run by hand shows them, a line each; for the book ``taylorir.pipeline`` takes these
    lines out.

    Raises:
        ValueError: for NaN or infinity, which no sentence should hold.
        TypeError: for anything but numbers, booleans and strings.
    """
    from IPython.display import display

    plain = {name: _plain(name, value) for name, value in values.items()}
    for name, value in plain.items():
        _record(name, value)
    lines = (
        f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in plain.items()
    )
    display({"text/plain": "\n".join(lines)}, raw=True, metadata={BY_HAND: True})


def glue_figure(name: str, figure: Figure, *, size: tuple[float, float] = (4.8, 4.0)) -> None:
    """Glue a figure by name, for the box at the head of a chapter; the cell does not show it.

    The box is narrow: legends go below the axes, and what is wider than the figure is broken, not made small.
    A figure grows in height where the lines of its labels would lie on each other.

    Args:
        name: by which the box takes it.
        figure: as a plot function of this room gives it.
        size: width and least height in inches that fit the box.
    """
    figure.set_size_inches(size)
    enlarge_letters(figure, BOX_PIXELS)
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        if max(map(len, labels), default=0) > WIDEST_LABEL:
            labels = [_broken(label) for label in labels]
            axes.set_yticks(axes.get_yticks(), labels)
            lines = len(labels) * max(label.count("\n") + 1 for label in labels)
            line = LINE_SPACING * axes.get_yticklabels()[0].get_fontsize() / 72
            figure.set_figheight(max(figure.get_figheight(), lines * line + ROOM_BELOW))
    legend_below(figure)
    _record(name, figure)


def _broken(label: str) -> str:
    """The label in lines that fit; where it breaks already it stays broken."""
    return "\n".join(textwrap.fill(line, WIDEST_LABEL) for line in label.splitlines())


def _record(name: str, value: Any) -> None:
    """Store what Jupyter would show of a value, as MyST-NB's ``glue`` does: notebooks run without Sphinx."""
    from IPython.core.formatters import format_display_data
    from IPython.display import display

    data, metadata = format_display_data(value)
    metadata["scrapbook"] = {"name": name, "mime_prefix": RECORD}
    display({f"{RECORD}{kind}": content for kind, content in data.items()}, raw=True, metadata=metadata)


def _plain(name: str, value: Any) -> float | int | str:
    if hasattr(value, "item"):  # an array of one element; of more, it is the TypeError below
        with contextlib.suppress(ValueError, RuntimeError):
            value = value.item()
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real):
        raise TypeError(f"glue_values: {name} is a {type(value).__name__}, expected a number or a string")
    if not math.isfinite(value):
        raise ValueError(f"glue_values: {name} is {value}, expected a finite number")
    return float(value)
