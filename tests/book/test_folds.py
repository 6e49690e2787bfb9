"""What a reader of the story does not need at first is folded, under a line that says what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.book.browser import browse, find_browser, served
from tests.book.glued import EXECUTED, needs_notebooks
from tests.book.test_book import BOOK

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LONGEST_OPEN = 18  # rows of a table that stands open
# Tables of runs, of validation, and of where things come from, by name.
ASIDE = {
    "tab-quality-budgets",
    "tab-prot-live",
    "tab-prot-sets",
    "tab-mem-live",
    "tab-mem-valid",
    "tab-run-operations",
    "tab-run-live",
    "tab-run-live-networks",
    "tab-restoration-runs",
}
NAME = re.compile(r'<div class="tir-table" id="([\w-]+)">')


def is_folded(cell: nbformat.NotebookNode) -> bool:
    return "hide-cell" in cell.metadata.get("tags", ())


def lengths(cells: list[nbformat.NotebookNode]) -> dict[str, int]:
    """Rows of each table of results that stands open, by its name."""
    found = {}
    for cell in cells:
        if cell.cell_type != "code" or is_folded(cell):
            continue
        for output in cell.outputs:
            shown = "".join(output.get("data", {}).get("text/html", ""))
            if name := NAME.match(shown):
                found[name[1]] = shown.partition("<tbody>")[2].count("<tr>")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_fold_says_what_it_hides_and_hides_no_figure(path):
    lines = []
    for cell in filter(is_folded, nbformat.read(path, 4).cells):
        shown = cell.metadata.mystnb
        assert "image" not in shown and "report.table(" in cell.source, cell.id
        show, hide = shown["code_prompt_show"], shown["code_prompt_hide"]
        assert show.startswith("Show ") and hide == f"Hide {show.removeprefix('Show ')}", cell.id
        lines.append(show)
    assert len(lines) == len(set(lines))


def test_runs_validation_and_provenance_are_folded():
    folded = set()
    for path in NOTEBOOKS:
        for cell in filter(is_folded, nbformat.read(path, 4).cells):
            folded.update(re.findall(r'name="(tab-[\w-]+)"', cell.source))
    assert ASIDE - folded == set()


def test_rows_are_counted_by_hand():
    table = (
        '<div class="tir-table" id="tab-a"><thead><tr></tr></thead><tbody><tr></tr><tr></tr></tbody></div>'
    )
    output = nbformat.v4.new_output("display_data", {"text/html": table})
    cell = nbformat.v4.new_code_cell("report.table(rows)", outputs=[output])
    assert lengths([cell]) == {"tab-a": 2}
    cell.metadata["tags"] = ["hide-cell"]
    assert lengths([cell]) == {}


@needs_notebooks
def test_no_long_table_stands_open():
    by_name = {}
    for path in sorted(EXECUTED.glob("*.ipynb")):
        by_name |= lengths(nbformat.read(path, 4).cells)
    assert len(by_name) >= 25
    assert {name: rows for name, rows in by_name.items() if rows > LONGEST_OPEN} == {}


@pytest.fixture
def page(tmp_path):
    if BOOK is None:
        pytest.skip("no built book; run make smoke")
    if find_browser() is None:
        pytest.skip("no Chromium on this machine")
    with served(BOOK) as address, browse(find_browser(), tmp_path / "profile") as page:
        page.address = address
        yield page


def seen(page, script: str, *, media: str = "screen") -> list[tuple]:
    page.call("Emulation.setEmulatedMedia", media=media)
    return [tuple(one) for one in json.loads(page.evaluate(script))]


FOLDED = """JSON.stringify([...document.querySelectorAll('.tag_hide-cell > details:not([open])')].map(
  fold => ['.tir-table', 'summary', '.cell_input'].map(part =>
    fold.querySelector(part).checkVisibility())))"""


@pytest.mark.book
def test_paper_shows_what_is_folded_and_no_code(page):
    page.open(f"{page.address}_executed/05_memory.html")
    assert set(seen(page, FOLDED)) == {(False, True, False)}
    shown = seen(page, FOLDED, media="print")
    assert len(shown) >= 5 and set(shown) == {(True, False, False)}


CODE = """JSON.stringify([...document.querySelectorAll('div.cell > details:not([open]) > .cell_input')].map(
  code => [code.closest('.cell').matches('.tag_in-print, .tag_parameters'), code.checkVisibility()]))"""


@pytest.mark.book
def test_paper_shows_the_code_that_the_text_speaks_of(page):
    page.open(f"{page.address}_executed/01_taylorshift.html")
    assert {visible for _, visible in seen(page, CODE)} == {False}
    shown = seen(page, CODE, media="print")
    assert set(shown) == {(True, True), (False, False)} and shown.count((True, True)) >= 6
