"""Each figure and table of a chapter has a caption, a name, and a place in prose that refers to it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
STILL_WITHOUT = ("13_",)


def referred_to() -> set[str]:
    """All names in ``{numref}``, of pages and of prose in notebooks."""
    prose = [page.read_text(encoding="utf-8") for page in (ROOT / "book").glob("*.md")]
    for path in NOTEBOOKS:
        cells = nbformat.read(path, 4).cells
        prose += [cell.source for cell in cells if cell.cell_type == "markdown"]
    return set(re.findall(r"\{numref\}`([\w-]+)`", "\n".join(prose)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_figure_and_table_has_a_name_that_prose_refers_to(path):
    if path.stem.startswith(STILL_WITHOUT):
        return
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
