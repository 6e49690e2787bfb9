"""Who has the paper's PDF types cells into ``published.csv``, runs chapter 3, and sees the differences."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from taylorir import report
from taylorir.experiments import decisive, shown_pair
from taylorir.rows import RESULTS_FOLDER, read_rows
from tests.book.test_same_cells import Row, tables

ROOT = Path(__file__).resolve().parents[2]


def run_cell(notebook: str, cell_id: str, **names: object) -> report.Table:
    """What a cell of a notebook shows, with these names defined."""
    (cell,) = (c for c in nbformat.read(ROOT / "notebooks" / notebook, 4).cells if c.id == cell_id)
    *body, last = ast.parse(cell.source).body
    exec(compile(ast.Module(body, []), cell_id, "exec"), names)
    return eval(compile(ast.Expression(last.value), cell_id, "eval"), names)


def paper_table(published: pd.DataFrame) -> list[Row]:
    names = {
        "decisive": decisive,
        "pd": pd,
        "read_rows": read_rows,
        "report": report,
        "shown_pair": shown_pair,
    }
    shown = run_cell("03_protocol.ipynb", "prot-paper", published=published, **names)
    output = nbformat.v4.new_output("display_data", {"text/html": shown._repr_html_()})
    return tables(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))[
        "tab-prot-paper"
    ]


@pytest.fixture
def typed(tmp_path) -> Path:
    """The committed rows with two rows of the paper's table typed; the numbers are made up."""
    text = (RESULTS_FOLDER / "published.csv").read_text(encoding="utf-8")
    for empty, filled in (
        ("TaylorSwinIR,DIV2K,Set5,2,,,", "TaylorSwinIR,DIV2K,Set5,2,39.35,0.9720,"),
        ("TaylorSwinIR,DIV2K,Manga109,4,,,", "TaylorSwinIR,DIV2K,Manga109,4,30.00,,"),
    ):
        assert text.count(empty) == 1
        text = text.replace(empty, filled)
    path = tmp_path / "published.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_as_committed_no_cell_of_the_paper_has_a_difference():
    cells = paper_table(read_rows("published.csv"))
    assert len(cells) == 2 * 15
    assert {cell["TaylorSwinIR, paper"] for cell in cells} == {cell["difference"] for cell in cells} == {"–"}


def test_a_typed_cell_is_compared_with_swinir_and_with_what_was_measured_here(typed):
    cells = {(c["measure"], c["set"], c["scale"]): c for c in paper_table(read_rows(typed))}
    psnr = cells["PSNR-Y, dB", "Set5", "2"]
    assert (psnr["TaylorSwinIR, paper"], psnr["SwinIR, published"]) == ("39.35", "38.35")
    assert psnr["gain in the paper"] == "+1.000"
    assert float(psnr["difference"]) == pytest.approx(1 - float(psnr["gain here"]), abs=1.1e-3)
    assert cells["SSIM-Y", "Set5", "2"]["gain in the paper"] == "+0.010"
    assert cells["PSNR-Y, dB", "Manga109", "4"]["TaylorSwinIR, paper"] == "30.00"
    assert cells["SSIM-Y", "Manga109", "4"]["TaylorSwinIR, paper"] == "–"
    filled = [cell for cell in cells.values() if cell["TaylorSwinIR, paper"] != "–"]
    assert len(filled) == 3
