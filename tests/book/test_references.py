"""Each figure and table of a chapter has a caption, a name, and a place in prose that refers to it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))


def referred_to() -> set[str]:
    """All names in ``{numref}``, of pages and of prose in notebooks."""
    return set(re.findall(r"\{numref\}`([\w-]+)`", "\n".join(map(prose, [*PAGES, *NOTEBOOKS]))))


def prose(path: Path) -> str:
    """The Markdown of a page or of a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def drawn(text: str) -> tuple[list[str], str]:
    """The names of figures and tables in prose ("" for none), and what is left of the prose without them."""
    block = re.compile(r"^(:::|```)\{(?:table|list-table|figure)\} ?.*?^\1$", re.MULTILINE | re.DOTALL)
    names = [
        re.search(r"^:name: ([\w-]+)$|\Z", one[0], re.MULTILINE)[1] or "" for one in block.finditer(text)
    ]
    return names, block.sub("", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_figure_and_table_has_a_name_that_prose_refers_to(path):
    names = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        tables = cell.source.count("report.table(")
        named = re.findall(r'name="(tab-[\w-]+)"', cell.source)
        assert len(named) == tables, f"{cell.id}: a table without a name"
        names += named
        shown = cell.metadata.get("mystnb", {})
        if "image" in shown:
            assert {"caption", "name"} <= set(shown.get("figure", {})), f"{cell.id}: no caption"
            names.append(shown["figure"]["name"])
    assert names and len(names) == len(set(names))
    assert set(names) - referred_to() == set()


def test_figures_and_tables_of_prose_by_hand():
    table = "| a |\n|---|\n| 1 |"
    assert drawn(f":::{{table}} Caption\n:name: tab-a\n\n{table}\n\n:::\n") == (["tab-a"], "\n")
    assert drawn("```{figure} a.svg\n:alt: text\n\nCaption\n```") == ([""], "")
    assert drawn(table) == ([], table)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_each_figure_and_table_of_prose_has_a_caption_and_a_name_that_prose_refers_to(path):
    names, rest = drawn(prose(path))
    assert re.findall(r"^\|[-| :]+\|$", rest, re.MULTILINE) == [], "a table without a caption"
    assert "" not in names and set(names) - referred_to() == set()
