"""Load a script on the pages that need it, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

NEEDED_BY = {"explorers.js": r'class="tir-explorer"', "verdicts.js": r'<table class="[^"]*\bverdicts\b'}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", _drop_unneeded, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _drop_unneeded(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    body = context.get("body", "")
    unneeded = [script for script, needed_by in NEEDED_BY.items() if not re.search(needed_by, body)]
    context["script_files"] = [
        script
        for script in context["script_files"]
        if not any(name in str(getattr(script, "filename", "")) for name in unneeded)
    ]
