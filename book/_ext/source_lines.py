"""``{source-lines} taylorir/room/module.py``: lines of the package, wherever the book is built from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude

ROOT = Path(__file__).resolve().parents[2]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("source-lines", SourceLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class SourceLines(LiteralInclude):
    """Sphinx's ``literalinclude`` with a path from the root of the repository."""

    def run(self) -> list[nodes.Node]:
        self.arguments[0] = "/" + os.path.relpath(ROOT / self.arguments[0], self.env.srcdir)
        return super().run()
