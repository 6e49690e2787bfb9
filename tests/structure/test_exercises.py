"""Each chapter ends with three exercises, and each is one parameter of its notebook set to another value."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest

from taylorir.pipeline.parameters import check_parameters, declared_parameters
from tests.structure.test_structure import NOTEBOOKS

FOLDED = re.compile(r"<details><summary>Answers</summary>\n\n(.*)\n\n</details>\Z", re.S)
EXERCISE = re.compile(r"^\d\. `(\w+) = (.+?)`\. .+\?$", re.M)


def exercises(path) -> list[tuple[str, str]]:
    """Parameter and value of each exercise; its text may run over lines."""
    text = nbformat.read(path, as_version=4).cells[-1].source
    return EXERCISE.findall(re.sub(r"\n   ", " ", FOLDED.sub("", text)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_chapter_ends_with_three_exercises_and_folded_answers(path):
    cell = nbformat.read(path, as_version=4).cells[-1]
    assert (cell.id, cell.cell_type) == ("exercises", "markdown")
    answers = FOLDED.search(cell.source).group(1)
    assert len(exercises(path)) == len(re.findall(r"^\d\. ", answers, re.M)) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_exercise_changes_a_parameter_of_its_notebook_to_a_value_that_it_takes(path):
    declared = declared_parameters(nbformat.read(path, as_version=4))
    for name, value in exercises(path):
        assert ast.literal_eval(value) != declared[name]
        check_parameters({name: ast.literal_eval(value)}, declared)
