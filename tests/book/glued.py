"""What the notebooks of a book glued, and where its pages show it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Executed notebooks of a build, if there is one.
EXECUTED = next(
    (
        folder
        for folder in (ROOT / "_build/smoke/source/_executed", ROOT / "book/_executed")
        if any(folder.glob("*.ipynb"))
    ),
    None,
)
needs_notebooks = pytest.mark.skipif(EXECUTED is None, reason="no executed notebooks; run make smoke")
ROLE = re.compile(r"\{glue:text\}`(?:[\w/.]*?(\w+)\.ipynb::)?(\w+)(?::([^`]*))?`")


class Shown(NamedTuple):
    """A place that shows a glued value."""

    page: str
    key: str
    form: str


def glued_values(executed: Path) -> dict[str, dict[str, str]]:
    """By notebook, what it glued: text by key."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(executed.glob("*.ipynb")):
        values = found.setdefault(path.stem, {})
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", ()):
                glue = output.get("metadata", {}).get("scrapbook")
                text = glue and output["data"].get(f"{glue.get('mime_prefix', '')}text/plain")
                if text and not "".join(text).startswith("<Figure"):
                    values[glue["name"]] = "".join(text)
    return found


def shown_values(pages: list[Path]) -> list[Shown]:
    """Every ``{glue:text}`` in the prose of Markdown pages and notebooks."""
    found = []
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
        found += [Shown(path.stem, key, form or "") for _, key, form in ROLE.findall(text)]
    return found
