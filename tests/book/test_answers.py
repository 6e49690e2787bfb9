"""Each chapter answers in its first screen: question, number, deciding figure, and what stays open."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.book.browser import browse, find_browser, served
from tests.book.sphinx_book import build_pages, prose, shown
from tests.book.test_book import BOOK

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BROWSER = find_browser()

WHOLE = """# A question

:::{answer} Is it linear?
:figure: drawn
:alt: A line that rises with the number of tokens.

Yes: **2.5** (2.4 to 2.6).

:Would change our mind: a steeper line.
:Does not show: other machines.

What the line shows.
:::
"""
WRONG = {
    "expected the options": WHOLE.replace(":figure: drawn\n", ""),
    "alt does not say": WHOLE.replace("A line that rises with the number of tokens.", "A line."),
    "no cell of this page glued a figure": WHOLE.replace("drawn", "forgotten"),
    "expected a paragraph that answers": WHOLE.replace("What the line shows.\n", ""),
    "got the fields": WHOLE.replace("Does not show", "Else"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book of pages with the box whole, and with one part of it missing; and what Sphinx said."""
    source = tmp_path_factory.mktemp("source")
    prefix = "application/papermill.record/"
    drawing = {f"{prefix}image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}
    glued = shown(drawing, scrapbook={"name": "drawn", "mime_prefix": prefix})
    pages = {f"page{number}": [prose(text), glued] for number, text in enumerate([WHOLE, *WRONG.values()])}
    return source / "_build", build_pages(source, pages, "answer")


def test_the_box_shows_question_answer_fields_and_figure(built):
    page = (built[0] / "page0.html").read_text()
    for part in (
        "Is it linear?",
        "(2.4 to 2.6)",
        "a steeper line.",
        "other machines.",
        "What the line shows.",
    ):
        assert page.count(part) == 1
    (image,) = re.findall(r"<img[^>]*>", page)
    assert 'alt="A line that rises with the number of tokens."' in image and ".svg" in image
    assert 'class="drawing"' in image  # which the style sheet draws anew on a dark page
    assert page.index("Is it linear?") < page.index("(2.4 to 2.6)") < page.index("What the line shows.")


@pytest.mark.parametrize("message", WRONG)
def test_a_box_that_lacks_a_part_is_an_error_of_the_build(built, message):
    (page,) = (f"page{number}.ipynb" for number, wrong in enumerate(WRONG, start=1) if wrong == message)
    assert [line for line in built[1].splitlines() if page in line and "ERROR" in line and message in line]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_chapter_begins_with_its_title_and_the_box(path):
    title, box = nbformat.read(path, 4).cells[0].source.split("\n\n")[:2]
    assert title.startswith("# ") and box.startswith(":::{answer} ")


GLUED = re.compile(r"\{glue:text\}`(\w+)")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_follows_the_box_does_not_say_it_again(path):
    box, _, below = nbformat.read(path, 4).cells[0].source.partition("\n:::\n")
    assert set(GLUED.findall(box)) and set(GLUED.findall(box)) & set(GLUED.findall(below)) == set()


SEEN = """JSON.stringify((() => {
  const box = document.querySelector('.tir-answer');
  if (!box) return null;
  const image = box.querySelector('figure img');
  return {
    bottom: box.getBoundingClientRect().bottom, width: image.getBoundingClientRect().width,
    drawn: image.complete && image.naturalWidth > 0, text: box.querySelector('.tir-found').textContent,
    before: document.querySelector('.bd-article h1').compareDocumentPosition(box) & 4,
    question: box.querySelector('.tir-question').textContent,
  };
})())"""


@pytest.mark.book
@pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_first_screen_of_each_chapter_shows_the_box(tmp_path):
    with served(BOOK) as address, browse(BROWSER, tmp_path / "profile") as page:
        page.show_as(width=1400, height=900)
        for path in NOTEBOOKS:
            page.open(f"{address}_executed/{path.stem}.html")
            seen = json.loads(page.evaluate(SEEN))
            assert seen and seen["before"] and seen["question"], path.stem
            assert any(letter.isdigit() for letter in seen["text"]), f"{path.stem}: no number"
            assert seen["drawn"] and seen["width"] >= 250, f"{path.stem}: no figure"
            assert seen["bottom"] <= 900, f"{path.stem}: the box ends at {seen['bottom']:.0f} of 900 pixels"
