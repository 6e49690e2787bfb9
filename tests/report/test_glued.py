"""Glue takes what a sentence or the box of a chapter should hold, and refuses the rest."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib
import myst_nb
import numpy as np
import pytest
from matplotlib.figure import Figure

from taylorir.report import glued as report


def test_glue_takes_one_number_or_word_and_refuses_the_rest(monkeypatch):
    glued = {}
    monkeypatch.setattr(report, "_record", lambda name, value: glued.update({name: value}))
    report.glue_values(a=np.float32(0.5), b=np.int64(3), c="word", d=np.array([2.0]), e=True)
    assert glued == {"a": 0.5, "b": 3, "c": "word", "d": 2.0, "e": "True"}
    assert [type(value) for value in glued.values()] == [float, int, str, float, str]
    for value in (float("nan"), np.inf):
        with pytest.raises(ValueError, match="finite"):
            report.glue_values(x=value)
    for value in (np.ones(2), [1], None):
        with pytest.raises(TypeError, match="expected a number or a string"):
            report.glue_values(x=value)


def test_glued_values_are_shown_a_line_each(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *data, **options: shown.append((data, options)))
    report.glue_values(third=np.float32(1 / 3), many=1234567, word="x")
    ((data,), options) = shown[-1]
    assert data == {"text/plain": "third = 0.333333\nmany = 1234567\nword = x"} and options["raw"]


@pytest.mark.parametrize("value", [0.25, 3, "word"])
def test_what_is_glued_is_stored_as_myst_nb_stores_it(monkeypatch, value):
    stored = []
    for where in ("IPython.display.display", "myst_nb.ext.glue.ipy_display"):
        monkeypatch.setattr(where, lambda *data, **options: stored.append((data, options)))
    report.glue_values(name=value)
    myst_nb.glue("name", value, display=False)
    record, _, theirs = stored
    assert record == theirs and record[1]["metadata"]["scrapbook"]["name"] == "name"


def test_no_sphinx_is_needed_to_glue():
    code = (
        "import sys; sys.modules['myst_nb'] = sys.modules['sphinx'] = None;"
        "from taylorir.report import glue_values; glue_values(x=1.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_figure_is_glued_at_the_size_of_the_box_and_not_shown(monkeypatch):
    glued = []
    monkeypatch.setattr(report, "_record", lambda *given: glued.append(given))
    figure = Figure()
    report.glue_figure("drawn", figure)
    assert glued == [("drawn", figure)]
    assert figure.get_size_inches().tolist() == [4.8, 4.0]


def test_a_figure_of_the_box_is_as_wide_as_the_box_whatever_its_legend_and_labels(monkeypatch):
    monkeypatch.setattr(report, "_record", lambda *given: None)
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        figure = Figure()
        left, right = figure.subplots(1, 2)
    for axes in (left, right):
        for name in ("softmax", "TaylorShift, efficient, as its authors published it", "a third form of it"):
            axes.plot([0, 1], label=name)
    left.set_yticks([0, 1], ["TaylorSwinIR, window 48, over SwinIR, window 8", "short"])
    right.legend()
    report.glue_figure("drawn", figure)
    (legend,) = figure.legends
    assert left.get_legend() is None and right.get_legend() is None
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0] == "softmax" and len(names) == 3
    assert figure.get_tightbbox().width <= 4.8 + 1e-6
    assert left.get_yticklabels()[0].get_text() == "TaylorSwinIR, window 48,\nover SwinIR, window 8"
    assert legend.get_window_extent().y1 < left.get_window_extent().y0


def test_a_figure_of_the_box_grows_until_its_labels_stand_apart(monkeypatch):
    monkeypatch.setattr(report, "_record", lambda *given: None)
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        axes = (figure := Figure()).subplots()
    axes.set_yticks(range(14), [f"a label that is broken in two, number {count}" for count in range(14)])
    report.glue_figure("drawn", figure)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    assert figure.get_figwidth() == pytest.approx(4.8)
