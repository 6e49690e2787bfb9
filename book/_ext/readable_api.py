"""Docstrings are written for the reader of the source; make two of their habits safe in reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LEGEND = re.compile(r"^(Shape legend|Shapes|Symbols)$")
BAR = re.compile(r"(``.*?``)|(?<!\\)\|")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A shape legend keeps its columns as a literal block; a bar, as in |q|, is no substitution."""
    result: list[str] = []
    literal_indent: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_indent is not None and line.strip() and indent <= literal_indent:
            literal_indent = None
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if LEGEND.match(line.strip()) and following.startswith(" " * (indent + 1)):
            result += [f"{line.rstrip()}::", ""]
            literal_indent = indent
            continue
        if literal_indent is None:
            line = BAR.sub(lambda match: match.group(1) or r"\|", line)
            if line.rstrip().endswith("::"):
                literal_indent = indent
        result.append(line)
    lines[:] = result
