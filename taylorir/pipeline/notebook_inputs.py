"""Which files a notebook depends on: itself, the modules that it imports, the data files that it names.

Found by reading the code, not by running it; the Snakefile asks, so that a change re-runs what it touches.
"""

from __future__ import annotations

import ast
import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "taylorir"
DATA = ("data/*.csv", "data/results/*", "data/weights/*")


def inputs_of(notebook: Path, root: Path = Path(".")) -> list[str]:
    """Paths relative to ``root``, sorted, of all that the results of a notebook depend on.

    A data file counts when a string in the notebook, or in a module that it imports, is its name, its path or
    its stem; the fields of an f-string stand for any text. A pattern of fewer than three letters of its own,
    as in ``folder.glob("*")``, names nothing.
    """
    trees = [ast.parse(_code_of(root / notebook))]
    modules = _reached(trees[0], root)
    trees += [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    patterns = {pattern for tree in trees for pattern in _string_patterns(tree)}
    data = [path for glob in DATA for path in root.glob(glob) if path.is_file() and _is_named(path, patterns)]
    return sorted({str(notebook), *(str(path.relative_to(root)) for path in (*modules, *data))})


def imported_modules(tree: ast.AST, package: str = PACKAGE) -> Iterator[str]:
    """Dotted names under ``package`` that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
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


def _reached(tree: ast.AST, root: Path) -> set[Path]:
    """Source files of the package that a tree imports, and what these import."""
    found: set[Path] = set()
    waiting = list(imported_modules(tree))
    while waiting:
        for path in _files_of(waiting.pop(), root):
            if path not in found:
                found.add(path)
                waiting += imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _files_of(module: str, root: Path) -> list[Path]:
    """The file of a dotted name and the ``__init__`` files above it; a public name of a room counts as the
    module that its room's ``__init__.pyi`` takes it from."""
    parts = module.split(".")
    stub = root.joinpath(*parts[:-1]) / "__init__.pyi"
    if stub.is_file():
        home = public_names(stub).get(parts[-1])
        parts = [*parts[:-1], *home.split(".")] if home else parts
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


def _string_patterns(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
        else:
            continue
        if "*" not in text or len(text.replace("*", "")) >= 3:
            yield text


def _is_named(path: Path, patterns: set[str]) -> bool:
    names = (path.name, path.stem, f"{path.parent.name}/{path.name}", f"data/{path.parent.name}/{path.name}")
    return any(
        name in patterns or any("*" in p and fnmatch.fnmatch(name, p) for p in patterns if "\n" not in p)
        for name in names
    )
