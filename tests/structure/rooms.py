"""The rooms of the package, their floors, and what they import of each other, read from the source.

``python -m tests.structure.rooms`` draws them anew into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from taylorir.pipeline.notebook_inputs import imported_modules

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "taylorir").rglob("*.py"))
}

# From the top of the house to its ground: a room imports only rooms of lower floors.
FLOORS = (
    ("cli",),
    ("experiments", "attribution"),
    ("convert",),
    ("evaluation", "training"),
    ("datasets", "cost", "fidelity"),
    ("networks", "pipeline", "images"),
    ("attention", "report", "rows"),
)
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports, but for the packages around it."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = {name for name in imported_modules(tree) if name in MODULES} - {module, "taylorir"}
    return {name for name in names if not module.startswith(f"{name}.")}


def room_imports() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in MODULES:
        if room_of(module) in ROOMS:
            found[room_of(module)] |= {room_of(name) for name in imports_of(module)} - {room_of(module)}
    return found


def drawing() -> str:
    """A Mermaid chart of the rooms; an arrow that others lead along already is left out."""
    direct = room_imports()
    below: dict[str, set[str]] = {}
    for room in sorted(ROOMS, key=ROOMS.get, reverse=True):
        below[room] = direct[room].union(*(below[other] for other in direct[room]))
    lines = ["```mermaid", "flowchart TD"]
    for room in ROOMS:
        others = direct[room] - set().union(*(below[other] for other in direct[room]))
        lines += [
            f"  {room} --> {' & '.join(sorted(others, key=list(ROOMS).index))}" if others else f"  {room}"
        ]
    return "\n".join([*lines, "```"])


def drawn(page: str) -> str:
    """The page with the drawing of today."""
    return re.sub(r"```mermaid\n.*?```", lambda _: drawing(), page, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
