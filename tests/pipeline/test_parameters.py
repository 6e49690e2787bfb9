"""A parameter that a notebook does not have, or of another type, is told before anything runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from taylorir.pipeline.parameters import (
    check_parameters,
    declared_parameters,
    parameters_by_notebook,
    parse_value,
)
from tests.pipeline.notebooks import write_notebook

DEFAULTS = {
    "preset": "cpu",
    "seed": 0,
    "rate": 1.0,
    "windows": [8, 16],
    "name": "x",
    "check": False,
    "free": None,
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": 3},
        {"rate": 2},
        {"rate": 2.5},
        {"windows": [48]},
        {"check": True},
        {"free": [1]},
        {"preset": "smoke"},
    ],
)
def test_parameters_of_the_right_type_pass(given):
    check_parameters(given, DEFAULTS)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sead": 3}, ValueError, "unknown parameter 'sead'; it has preset, seed"),
        ({"seed": 3.0}, TypeError, r"seed is 3.0 \(float\), expected int"),
        ({"seed": True}, TypeError, r"seed is True \(bool\)"),
        ({"rate": "1e-5"}, TypeError, "rate is '1e-5'"),
        ({"windows": 48}, TypeError, "windows is 48"),
        ({"windows": ["48"]}, TypeError, "windows"),
        ({"check": 1}, TypeError, "check is 1"),
        ({"preset": "smoky"}, ValueError, "preset is 'smoky', expected one of smoke, cpu, paper"),
    ],
)
def test_parameters_that_are_unknown_or_mistyped_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        check_parameters(given, DEFAULTS)


def test_declared_parameters_are_read_across_lines_and_must_be_literal():
    cell = new_code_cell("windows = [\n    8,\n    48,\n]\nrate = 1e-5", metadata={"tags": ["parameters"]})
    assert declared_parameters(new_notebook(cells=[cell])) == {"windows": [8, 48], "rate": 1e-5}
    cell.source = "rate = 1 / 3"
    with pytest.raises(ValueError, match="not a JSON value"):
        declared_parameters(new_notebook(cells=[cell]))
    with pytest.raises(ValueError, match="0 cells"):
        declared_parameters(new_notebook())


def test_a_parameter_may_say_its_type():
    cell = new_code_cell("rate: float = 0.5  # of what\nseed: int", metadata={"tags": ["parameters"]})
    with pytest.raises(ValueError, match="expected 'name = value', got 'seed: int'"):
        declared_parameters(new_notebook(cells=[cell]))
    cell.source = "rate: float = 0.5  # of what\nseeds: list[int] = [1, 2]"
    assert declared_parameters(new_notebook(cells=[cell])) == {"rate": 0.5, "seeds": [1, 2]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05),  # YAML 1.1 makes a word of it
        ("1E5", 1e5),
        ("3", 3),
        ("0.25", 0.25),
        ("true", True),
        ("null", None),
        ("[1, 2.5]", [1, 2.5]),
        ("word", "word"),
        ('"1"', "1"),
        ("[a, b]", ["a", "b"]),
    ],
)
def test_a_typed_value_is_what_it_looks_like(text, value):
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[", "{a: ", "'x"])
def test_what_is_no_value_is_one_line(text):
    with pytest.raises(ValueError, match="is no value: ") as error:
        parse_value(text)
    assert "\n" not in str(error.value)


def test_texts_of_a_build_are_read_as_the_defaults_want_them(tmp_path):
    cell = 'rate = 1.0\nname = "x"\nwindows = [8]\nfree = None\nnames = ["a"]'
    write_notebook(tmp_path / "01_a.ipynb", parameters=cell)
    write_notebook(tmp_path / "02_b.ipynb")
    own = {"rate": "1e-05", "name": "12", "windows": ["4", "8"], "free": "3", "names": ["1"]}
    assert parameters_by_notebook({"01_a": own}, "smoke", tmp_path) == {
        "01_a": {"rate": 1e-05, "name": "12", "windows": [4, 8], "free": 3, "names": ["1"]}
        | {"preset": "smoke", "seed": 0},
        "02_b": {"preset": "smoke", "seed": 0},
    }
    assert parameters_by_notebook(None, "cpu", tmp_path)["02_b"] == {"preset": "cpu", "seed": 0}


@pytest.mark.parametrize(
    ("given", "preset", "message"),
    [
        ({"03_c": {"seed": "1"}}, "cpu", "unknown notebook 03_c; .*notebooks: 01_a"),
        ({"03_c": {}}, "smoky", "unknown notebook 03_c, preset smoky; presets: smoke, cpu, paper"),
        ({"01_a": {"sead": "1"}}, "cpu", "01_a.ipynb: unknown parameter 'sead'; it has preset, seed"),
        ({"01_a": {"seed": "1.5"}}, "cpu", "01_a.ipynb: parameter seed is 1.5"),
        ({"01_a": {"seed": "x"}}, "cpu", "01_a.ipynb: parameter seed is 'x'"),
        ({"01_a": {"preset": "smoky"}}, "cpu", "01_a.ipynb: preset is 'smoky'"),
        ({"01_a": "1"}, "cpu", "01_a.ipynb: parameters are '1'"),
        ("{01_a: {seed: [}}", "cpu", "parameters are '{01_a"),
    ],
)
def test_a_build_with_a_mistyped_notebook_or_parameter_is_refused(tmp_path, given, preset, message):
    write_notebook(tmp_path / "01_a.ipynb")
    with pytest.raises((ValueError, TypeError), match=message) as error:
        parameters_by_notebook(given, preset, tmp_path)
    assert "\n" not in str(error.value)


def test_a_wrong_preset_is_one_line_in_a_notebook(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    check = "from taylorir.pipeline import check_preset\ncheck_preset({!r})"
    assert shell.run_cell(check.format("smoke")).success
    capsys.readouterr()
    assert not shell.run_cell(check.format("smoky")).success
    shown = capsys.readouterr().out.strip()
    assert shown == "WrongPreset: preset is 'smoky', expected one of smoke, cpu, paper"


NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_explains_each_parameter_of_a_notebook(path):
    """``papermill --help-notebook`` prints what this finds: name, type, default and comment."""
    from papermill.inspection import inspect_notebook

    defaults = declared_parameters(nbformat.read(path, as_version=4))
    found = inspect_notebook(str(path))
    assert list(found) == list(defaults)
    for name, said in found.items():
        assert said["help"], f"{name} has no comment"
        value = defaults[name]
        told = said["inferred_type_name"]
        assert told == _type_of(value) if value != [] else re.fullmatch(r"list\[\w+\]", told), name
        assert ast.literal_eval(said["default"]) == value


def _type_of(value):
    """As an annotation says it: ``list[int]`` of ``[1, 2]``."""
    if isinstance(value, list):
        (inner,) = {_type_of(item) for item in value}
        return f"list[{inner}]"
    if isinstance(value, dict):
        (inner,) = {_type_of(item) for item in value.values()}
        return f"dict[str, {inner}]"
    return type(value).__name__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_checks_its_preset_before_it_computes(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code" and cell.id != "colab"]
    assert "\ncheck_preset(preset)\n" in code[1]
