"""The paper's cells: empty until somebody types them, then compared one by one."""

from __future__ import annotations

import pandas as pd
import pytest

from taylorir.report.protocol import beside_paper, published_table
from taylorir.rows import read_rows

ROWS = pd.DataFrame(
    [
        ("SwinIR-M", "DIV2K", "Set5", 2, 38.0, 0.96),
        ("SwinIR-M", "DF2K", "Set5", 2, 38.5, 0.97),
        ("SwinIR-M", "DIV2K", "Set14", 2, 34.0, 0.92),
        ("TaylorSwinIR", "DIV2K", "Set5", 2, 38.2, 0.965),
        ("TaylorSwinIR", "DIV2K", "Set14", 2, None, None),
    ],
    columns=["model", "training", "set", "upscale", "psnr_y", "ssim_y"],
)
MEASURED = pd.DataFrame(
    [
        ("SwinIR", "Set5", 2, 36.0, 0.90),
        ("SwinIR", "Set5", 2, 36.4, 0.90),
        ("TaylorSwinIR", "Set5", 2, 36.1, 0.91),
        ("TaylorSwinIR", "Set5", 2, 36.5, 0.91),
    ],
    columns=["model", "set", "upscale", "psnr_y", "ssim_y"],
)


def test_filled_cells_are_compared_and_empty_ones_wait():
    cells = beside_paper(ROWS, MEASURED).set_index(["measure", "set"])
    filled = cells.loc[("psnr_y", "Set5")]
    assert filled[["paper", "swinir"]].tolist() == [38.2, 38.0]
    assert filled[["gain_paper", "gain_here", "difference"]].tolist() == pytest.approx([0.2, 0.1, 0.1])
    assert cells.loc[("ssim_y", "Set5"), "difference"] == pytest.approx(0.005 - 0.01)
    empty = cells.loc[("psnr_y", "Set14")]
    assert empty.swinir == 34.0 and empty[["paper", "gain_paper", "difference"]].isna().all()


def test_rows_without_a_value_are_not_in_the_table_of_published_ones():
    cells = published_table(ROWS).set_index("model").loc["TaylorSwinIR"]
    assert cells["Set5"] == "38.20 / 0.9650" and pd.isna(cells["Set14"])


def test_the_committed_rows_have_an_empty_one_for_each_cell_of_the_paper():
    rows = read_rows("published.csv")
    own = rows[rows.model == "TaylorSwinIR"]
    assert len(own.drop_duplicates(["set", "upscale"])) == len(own) == 5 * 3
    assert own.note.str.contains("PDF").all() and own.source.str.contains("2411.10231").all()
