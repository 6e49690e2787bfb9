"""A chapter ends with three exercises: one parameter changed, and an answer that was seen to hold."""

from __future__ import annotations

import re

import nbformat
import pandas as pd
import pytest
import yaml

from taylorir.pipeline.parameters import check_parameters, declared_parameters
from tests.book.glued import EXECUTED, glued_values, needs_notebooks
from tests.exercises.exercises import EXPECTED, FOLDED, ROWS, exercises_of, holds
from tests.structure.test_structure import NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_chapter_ends_with_three_exercises_and_folded_answers(path):
    cell = nbformat.read(path, as_version=4).cells[-1]
    assert (cell.id, cell.cell_type) == ("exercises", "markdown")
    answers = FOLDED.search(cell.source).group(1)
    assert len(exercises_of(path)) == len(re.findall(r"^\d\. ", answers, re.M)) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_exercise_changes_a_parameter_of_its_notebook_to_a_value_that_it_takes(path):
    declared = declared_parameters(nbformat.read(path, as_version=4))
    for exercise in exercises_of(path):
        assert exercise.value != declared[exercise.parameter]
        check_parameters({exercise.parameter: exercise.value}, declared)


def test_what_is_expected_belongs_to_an_exercise():
    changes = {path.stem: [exercise.change for exercise in exercises_of(path)] for path in NOTEBOOKS}
    expected = yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))
    assert {name: [*found] for name, found in expected.items()} == changes
    assert all(found for of_notebook in expected.values() for found in of_notebook.values())


@needs_notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_answer_speaks_of_what_its_notebook_glues(path):
    glued = glued_values(EXECUTED)[path.stem]
    assert [name for exercise in exercises_of(path) for name in exercise.expected if name not in glued] == []


def test_the_answers_that_were_run_held():
    rows = pd.read_csv(ROWS, dtype=str).set_index(["notebook", "change", "glued"])
    wanted = {
        (path.stem, exercise.change, name): str(expected)
        for path in NOTEBOOKS
        if path.stem in rows.index.unique("notebook")
        for exercise in exercises_of(path)
        for name, expected in exercise.expected.items()
    }
    assert rows["expected"].to_dict() == wanted and set(rows["holds"]) == {"True"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (2.0, 1.0, "smaller"),
        (-2.0, -1.0, "larger"),
        (0.1 + 0.2, 0.3, "same"),
        ("better", "worse", "other"),
        (2.0, 3.5, "3 to 4"),
        (2.0, 7.0, "3 to 4 times"),
        (10, 231, 231),
        (0.1, 0.3, 0.1 + 0.2),
        ("a", "b", "b"),
    ],
)
def test_what_an_answer_may_say_by_hand(before, after, expected):
    assert holds(before, after, expected)
    assert not holds(after, before, expected) or expected in ("same", "other")


def test_what_does_not_hold_by_hand():
    assert not holds(1.0, 1.0, "smaller") and not holds(1.0, 1.0, "larger") and not holds(1.0, 1.0, "other")
    assert not holds(1.0, 1.1, "same") and not holds(2.0, 8.5, "3 to 4 times")
