"""Which files a notebook depends on: itself, its runner, the modules that it imports, the data that it reads.

Modules are found by reading the code, not by running it; data files are declared in ``notebooks/reads.yaml``.
The Snakefile asks, so that a change re-runs what it touches.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taylorir.pipeline.reads import declared_reads

PACKAGE = "taylorir"
RUNNER = f"{PACKAGE}.pipeline.run_notebook"
ENVIRONMENT = "requirements.txt"


def inputs_of(notebook: Path, parameters: Mapping[str, Any], root: Path = Path(".")) -> list[str]:
    """Paths relative to ``root``, sorted, of all that the results of a notebook depend on.

    Args:
        notebook: relative to ``root``.
        parameters: all of the notebook's.
        root: of the checkout.
    """
    tree = ast.parse(_code_of(root / notebook))
    modules = _reached([*imported_modules(tree), RUNNER], root)
    files = (str(path.relative_to(root)) for path in modules | _parts_of_rooms(modules, root))
    return sorted({str(notebook), ENVIRONMENT, *files, *declared_reads(notebook, parameters, root)})


def imported_modules(tree: ast.AST, package: str = PACKAGE) -> Iterator[str]:
    """Dotted names under ``package`` that a module imports, wherever the import stands.

    Of a room that it imports whole, as in ``from taylorir import report``, what it takes: ``report.cost``.
    """
    rooms: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == package:
            rooms |= {alias.asname or alias.name: f"{package}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            yield f"{rooms[node.value.id]}.{node.attr}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name == package or name.startswith(f"{package}."))


def _code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = [
        line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()
    ]
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def _reached(modules: list[str], root: Path) -> set[Path]:
    """Source files of the modules, and of what these import."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        for path in _files_of(waiting.pop(), root):
            if path not in found:
                found.add(path)
                waiting += imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _parts_of_rooms(modules: set[Path], root: Path) -> set[Path]:
    """What the rooms of these modules hold beside Python: sources of kernels, tables that they choose by."""
    rooms = {path.relative_to(root / PACKAGE).parts[0] for path in modules}
    found = (path for room in rooms for path in (root / PACKAGE / room).glob("**/*"))
    return {path for path in found if path.suffix in (".h", ".cpp", ".csv")}


def _files_of(module: str, root: Path) -> list[Path]:
    """The file of a dotted name and the ``__init__`` files above it; a public name of a room counts as the
    module that its room's ``__init__.pyi`` takes it from."""
    parts = module.split(".")
    stub = root.joinpath(*parts[:-1]) / "__init__.pyi"
    home = public_names(stub).get(parts[-1]) if stub.is_file() else None
    if home not in (None, parts[-1]):
        name = ".".join((*parts[:-1], home))
        if root.joinpath(
            *name.split("."), "__init__.pyi"
        ).is_file():  # it comes from a room, by its name there
            return _files_of(f"{name}.{parts[-1]}", root)
        parts = name.split(".")
    folders = [root.joinpath(*parts[:depth]) / "__init__.py" for depth in range(1, len(parts) + 1)]
    return [path for path in (*folders, root.joinpath(*parts).with_suffix(".py")) if path.is_file()]


def public_names(stub: Path) -> dict[str, str]:
    """The names that a stub exports, and the submodule that each is taken from (its own, for a module)."""
    return {
        alias.name: node.module or alias.name
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
