"""What parameters a notebook has, and whether the given ones are among them; known before anything runs."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from taylorir.rows import one_line

#: How much a notebook computes: seconds, minutes, or all of it on a GPU.
PRESETS = ("smoke", "cpu", "paper")


class WrongPreset(ValueError):
    """A preset that no notebook has; IPython shows it as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def check_preset(preset: str) -> None:
    """Refuse what is not one of ``PRESETS``: the first call of every notebook.

    Raises:
        WrongPreset: which a notebook shows without a traceback.
    """
    if preset not in PRESETS:
        raise WrongPreset(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}")


def declared_parameters(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters and their defaults, out of the cell tagged ``parameters``.

    Args:
        notebook: as nbformat or json reads it.

    Raises:
        ValueError: if there is not exactly one such cell, or a line of it is neither ``name = JSON value``
            nor ``name: type = JSON value``.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"notebook: {len(cells)} cells are tagged 'parameters', expected one")
    defaults = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                try:
                    defaults[name] = ast.literal_eval(value)
                except ValueError:
                    reason = f"parameters cell: {ast.unparse(statement)!r} is not a JSON value"
                    raise ValueError(reason) from None
            case _:
                reason = f"parameters cell: expected 'name = value', got {ast.unparse(statement)!r}"
                raise ValueError(reason)
    return defaults


def check_parameters(
    given: Mapping[str, Any], defaults: Mapping[str, Any], *, notebook: str = "notebook"
) -> None:
    """Refuse a parameter that the notebook does not have, or whose type is not that of its default.

    An int may stand for a float; a default of ``None`` takes anything.

    Raises:
        ValueError: for an unknown name or preset.
        TypeError: for another type.
    """
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"{notebook}: unknown parameter {name!r}; it has {', '.join(defaults)}")
        wanted = defaults[name]
        if wanted is not None and not _same_type(value, wanted):
            raise TypeError(
                f"{notebook}: parameter {name} is {value!r} ({type(value).__name__}), "
                f"expected {type(wanted).__name__} as in {wanted!r}"
            )
    preset = given.get("preset", defaults.get("preset"))
    if preset not in PRESETS:
        raise ValueError(f"{notebook}: preset is {preset!r}, expected one of {', '.join(PRESETS)}")


def parse_value(text: str) -> Any:
    """The value of a parameter as it is typed: JSON, else YAML, whose version 1.1 takes ``1e-05`` for a word.

    Raises:
        ValueError: if it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{text!r} is no value: {one_line(error)}") from None


def parameters_by_notebook(given: Any, preset: str, folder: Path) -> dict[str, dict[str, Any]]:
    """All parameters of a build, checked against all notebooks.

    Args:
        given: what stands under ``parameters`` in the build's configuration: values by name by notebook.
            Texts are read as the type of the default wants it: Snakemake hands on everything as text.
        preset: of every notebook, unless it is given one of its own.
        folder: holds the notebooks.

    Returns:
        For each notebook, sorted by name, its defaults with what is given in their place.

    Raises:
        ValueError: for an unknown preset, notebook or parameter.
        TypeError: for a value of another type than its default.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise TypeError(f"parameters are {given!r}, expected values by name by notebook")
    unknown = [f"notebook {name}" for name in given if name not in {path.stem for path in notebooks}]
    unknown += [f"preset {preset}"] if preset not in PRESETS else []
    if unknown:
        known = f"presets: {', '.join(PRESETS)}; notebooks: {', '.join(path.stem for path in notebooks)}"
        raise ValueError(f"unknown {', '.join(unknown)}; {known}")
    chosen = {}
    for path in notebooks:
        defaults = declared_parameters(json.loads(path.read_text(encoding="utf-8")))
        own = given.get(path.stem) or {}
        if not isinstance(own, Mapping):
            raise TypeError(f"{path.name}: parameters are {own!r}, expected values by name")
        own = {"preset": preset} | {name: _typed(value, defaults.get(name)) for name, value in own.items()}
        check_parameters(own, defaults, notebook=path.name)
        chosen[path.stem] = defaults | own
    return chosen


def _typed(value: Any, default: Any) -> Any:
    """A value in which each text that does not stand for a text is read."""
    if isinstance(value, list):
        example = default[0] if isinstance(default, list) and default else None
        return [_typed(item, example) for item in value]
    if isinstance(value, Mapping):
        examples = default if isinstance(default, Mapping) else {}
        return {name: _typed(item, examples.get(name)) for name, item in value.items()}
    if isinstance(value, str) and not isinstance(default, str):
        return parse_value(value)
    return value


def _same_type(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and isinstance(value, list):
        return not wanted or all(any(_same_type(item, example) for example in wanted) for item in value)
    if isinstance(wanted, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(wanted)
