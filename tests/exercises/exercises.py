"""The exercises of the chapters, and what their answers say of the numbers that a notebook glues.

An exercise is a line ``1. `name = value`. Question?`` of a notebook's last cell. ``expected.yaml`` has, by
notebook and by such a change, what the answer says of glued values after it: that they are ``smaller``,
``larger``, ``same`` or ``other`` than before, ``0.9 to 1.1``, ``3.5 to 4.2 times`` those, or a value.
"""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import yaml

EXPECTED = Path(__file__).with_name("expected.yaml")
ROWS = Path(__file__).with_name("rows.csv")

FOLDED = re.compile(r"<details><summary>Answers</summary>\n\n(.*)\n\n</details>\Z", re.S)
EXERCISE = re.compile(r"^\d\. `((\w+) = (.+?))`\. .+\?$", re.M)
BETWEEN = re.compile(r"(\S+) to (\S+?)( times)?")


class Exercise(NamedTuple):
    """One exercise of a notebook."""

    change: str
    parameter: str
    value: Any
    expected: dict[str, Any]
    """By glued name."""


def exercises_of(notebook: Path) -> list[Exercise]:
    """The exercises of a notebook, in order; their text may run over lines.

    Raises:
        KeyError: ``expected.yaml`` lacks one of them.
    """
    text = FOLDED.sub("", nbformat.read(notebook, as_version=4).cells[-1].source)
    expected = yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))[notebook.stem]
    return [
        Exercise(change, parameter, ast.literal_eval(value), expected[change])
        for change, parameter, value in EXERCISE.findall(re.sub(r"\n   ", " ", text))
    ]


def holds(before: Any, after: Any, expected: Any) -> bool:
    """Whether a glued value does what an answer says of it.

    Raises:
        ValueError: a text is given where a number is needed.
    """
    same = math.isclose(before, after, rel_tol=1e-9) if isinstance(after, float) else before == after
    match expected:
        case "same" | "other":
            return same == (expected == "same")
        case "smaller" | "larger":
            return not same and (after < before) == (expected == "smaller")
    if between := BETWEEN.fullmatch(str(expected)):
        low, high = map(float, between.group(1, 2))
        return low <= (after / before if between[3] else after) <= high
    return math.isclose(after, expected, rel_tol=1e-9) if isinstance(after, float) else after == expected
