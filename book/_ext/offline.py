"""Keep the book readable without a network: MathJax from the wheel, nothing from a CDN."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SCRIPT = "tex-svg-full.js"  # the plain tex-svg.js loads parts of itself later, over the network


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _set_path)
    app.connect("html-page-context", _drop_remote, priority=900)
    app.connect("build-finished", _copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _set_path(app: Sphinx, config: Any) -> None:
    config.mathjax_path = f"mathjax/{SCRIPT}"


def _drop_remote(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out scripts of other hosts, and those of a button that we do not show."""

    def stays(script: Any) -> bool:
        name, body = str(getattr(script, "filename", script) or ""), str(script.attributes.get("body") or "")
        return "://" not in name and "thebe" not in name and "THEBE" not in body and "thebe" not in body

    context["script_files"] = [script for script in context["script_files"] if stays(script)]
    context["css_files"] = [
        sheet
        for sheet in context["css_files"]
        if "://" not in str(getattr(sheet, "filename", ""))
        and "thebe" not in str(getattr(sheet, "filename", ""))
    ]


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    for file in importlib.metadata.files("sphinx-mathjax-offline") or []:
        if file.name == SCRIPT:
            target = Path(app.outdir, "_static", "mathjax", SCRIPT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)
            return
    raise ExtensionError(f"{SCRIPT} is not in the installed sphinx-mathjax-offline")
