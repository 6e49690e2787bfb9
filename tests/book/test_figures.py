"""Letters of a figure can be read as it is shown, on a wide screen and on a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from taylorir.report import letters
from tests.book.browser import browse
from tests.book.test_book import BOOK, BROWSER, CONTENT

LEAST = {1280: 9.0, 420: 8.0}
"""Width of a window: least size of a font in it, in CSS pixels."""
GLYPHS = re.compile(r"scale\(([\d.]+) -[\d.]+\)")  # how matplotlib draws a letter: of 100 units
FONT_SIZE = re.compile(r'font-size[=:]\s*"?([\d.]+)')
VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ')
SHOWN = """JSON.stringify([...document.querySelectorAll('.bd-article img')].map(
  image => [image.getAttribute('src'), image.getBoundingClientRect().width]))"""


def smallest(svg: str) -> float:
    """Size of the smallest font of a drawing, as a part of its width."""
    sizes = [100 * float(scale) for scale in GLYPHS.findall(svg)] + list(map(float, FONT_SIZE.findall(svg)))
    return min(sizes) / float(VIEW.search(svg)[1])


@pytest.mark.parametrize(
    "svg",
    [
        '<svg viewBox="0 0 400 9"><g transform="scale(0.12 -0.12)"/><g transform="scale(0.08 -0.08)"/>',
        '<svg viewBox="0 0 400 9" font-size="14"><style>.small { font-size: 8px; }</style>',
    ],
)
def test_the_smallest_font_by_hand(svg):
    assert smallest(svg) == pytest.approx(0.02)


def test_letters_grow_with_the_width_of_a_figure_and_never_shrink():
    figure = Figure(figsize=(10, 2))
    axes = figure.subplots()
    small, large = axes.text(0, 0, "small", fontsize=6), axes.text(0, 0, "large", fontsize=20)
    axes.tick_params(labelsize=6)
    letters.enlarge_letters(figure, shown=460)
    figure.draw_without_rendering()
    least = 9.2 * 720 / 460  # 14.4 points
    sizes = [text.get_fontsize() for text in (small, large, axes.get_xticklabels()[0])]
    assert sizes == pytest.approx([least, 20, least])


@pytest.mark.book
@pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_letters_of_every_drawing_can_be_read(tmp_path):
    drawings, unreadable = 0, {}
    with browse(BROWSER, tmp_path / "profile") as page:
        for path in CONTENT:
            if ".svg" not in path.read_text(encoding="utf-8"):
                continue
            page.open(path.as_uri())
            for width, least in LEAST.items():
                page.show_as(width=width)
                for source, shown in json.loads(page.evaluate(SHOWN)):
                    drawing = Path(path.parent, source)
                    if drawing.suffix != ".svg":
                        continue
                    drawings += 1
                    size = shown * smallest(drawing.read_text(encoding="utf-8"))
                    if size < least:
                        unreadable[path.stem, drawing.name[:12], width] = round(size, 1)
    assert unreadable == {}
    assert drawings > 2 * 30
