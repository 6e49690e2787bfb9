"""Tables say what the rows say, glue refuses what no sentence should hold, figures stay byte for byte."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from taylorir.report import tables as report
from taylorir.rows.measured import PROVENANCE_COLUMNS

ROWS = pd.DataFrame(
    {
        "method": ["softmax_naive", "taylor_efficient", "bicubic"],
        "psnr": [33.661, 33.669, np.nan],
        "tokens": [64, 2304, 1],
        "device": "CPU",
        "dtype": "float32",
        "torch": "2.13",
        "commit": "abc",
        "seed": 0,
        "date": ["2026-01-01", "2026-01-02", "2026-01-01"],
    }
)


def test_provenance_columns_are_those_of_the_package():
    assert report.PROVENANCE == PROVENANCE_COLUMNS


def test_table_formats_escapes_marks_the_best_and_says_where_it_was_measured():
    shown = report.table(
        ROWS.replace("bicubic", "<b>"),
        {"psnr": ".2f"},
        "PSNR & tokens",
        best={"psnr": "max", "tokens": "min"},
    )
    markup = shown._repr_html_()
    assert "<caption>PSNR &amp; tokens</caption>" in markup and "&lt;b&gt;" in markup
    assert '<td class="number">33.66</td>' in markup and "<strong>33.67</strong>" in markup
    assert "<strong>1</strong>" in markup and "<strong>64</strong>" not in markup and ">–<" in markup
    assert "Measured on CPU; float32; 2026-01-01, 2026-01-02; abc." in markup
    assert "seed" not in markup and markup.count("<tr>") == 4
    assert "33.67" in repr(shown)


def test_a_commit_with_a_plus_is_explained_where_it_stands():
    changed = report.measured_on(ROWS.assign(commit="ab12+"))
    assert changed.endswith("; ab12+ (+: with changes not yet committed).")
    assert "+" not in report.measured_on(ROWS.assign(commit="ab12"))


def test_table_shows_the_columns_asked_for_under_their_headings():
    markup = report.table(ROWS, columns={"tokens": "N", "method": "who"}, note="")._repr_html_()
    assert markup.index(">N<") < markup.index(">who<") and "psnr" not in markup and "Measured" not in markup


def test_table_shows_methods_by_the_label_that_figures_use():
    markup = report.table(ROWS)._repr_html_()
    assert ">softmax, as in SwinIR<" in markup and ">Taylor, efficient, ours<" in markup
    assert "softmax_naive" not in markup and "taylor_efficient" not in markup


def test_what_is_zero_at_the_digits_shown_has_no_sign():
    cells = {
        "-0.00": "0.00",
        "+0.0%": "0.0%",
        "-0": "0",
        "-0.01": "-0.01",
        "+0.0e-05": "+0.0e-05",
        "0.0": "0.0",
    }
    assert {text: report.without_sign_of_zero(text) for text in cells} == cells
    markup = report.table(pd.DataFrame({"gain": [-0.001, -0.01]}), {"gain": "+.2f"})._repr_html_()
    assert ">0.00<" in markup and ">-0.01<" in markup


def test_a_table_has_the_name_that_prose_refers_to():
    named = report.table(ROWS, caption="All", name="tab-all")._repr_html_()
    assert named.startswith('<div class="tir-table" id="tab-all"><table><caption>All<')
    assert report.table(ROWS)._repr_html_().startswith('<div class="tir-table"><table><thead>')


@pytest.mark.parametrize("wrong", [{"columns": ["psnrr"]}, {"formats": {"x": ".2f"}}, {"best": {"y": "max"}}])
def test_table_refuses_columns_that_are_not_there(wrong):
    with pytest.raises(ValueError, match="no column"):
        report.table(ROWS, **wrong)


def test_table_refuses_a_best_that_is_neither():
    with pytest.raises(ValueError, match="expected 'max' or 'min'"):
        report.table(ROWS, best={"psnr": "largest"})


def test_each_method_has_a_look_of_its_own():
    looks = {name: style for name, style in report.METHODS.items() if name not in ("swinir", "taylorswinir")}
    for field in range(3):
        assert len({style[field] for style in looks.values()}) == len(looks)
    with pytest.raises(ValueError, match="expected one of bicubic"):
        report.style_of("bicubbic")


def lines() -> Figure:
    return report.plot_methods(
        ROWS.dropna(), "tokens", "psnr", xlabel="tokens", ylabel="dB", marks={"N0": 931}
    )


@pytest.mark.parametrize("form", ["svg", "png"])
def test_figures_are_the_same_bytes_each_time_and_appear_whole(tmp_path, form):
    report.use_style()
    first, second = (report.save_figure(lines(), tmp_path / f"{name}.{form}").read_bytes() for name in "ab")
    assert first == second and len(first) > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{form}", f"b.{form}"]


def test_lines_go_through_the_medians_in_the_colour_of_the_method():
    rows = pd.DataFrame({"method": "taylor_efficient", "n": [1, 2, 2, 2], "t": [1.0, 2.0, 9.0, 4.0]})
    line = report.plot_methods(rows, "n", "t", xlabel="n", ylabel="t").axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 1], [2, 4]]
    assert line.get_color() == report.METHODS["taylor_efficient"].color


def test_pictures_are_told_from_lines():
    pictures = report.plot_pictures({"a": np.zeros((4, 6, 3), np.uint8), "b": np.ones((4, 6))})
    assert [axes.get_title() for axes in pictures.axes] == ["a", "b"]
    assert report._shows_pictures(pictures) and not report._shows_pictures(lines())
