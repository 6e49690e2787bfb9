"""Load the script of the figures with dials on the pages that have one, and nowhere else."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

SCRIPT, NEEDED_BY = "explorers.js", 'class="tir-explorer"'


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", _drop_unneeded, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _drop_unneeded(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if NEEDED_BY not in context.get("body", ""):
        context["script_files"] = [
            script for script in context["script_files"] if SCRIPT not in str(getattr(script, "filename", ""))
        ]
