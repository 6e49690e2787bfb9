"""Two places where the markup of others tells a screen reader something else than the page shows."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

MENDED = {
    ' aria-label="Toggle hidden content"': "",  # "Show the code" says more, and is what is seen
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its entries are no items
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for wrong, right in MENDED.items():
        if "body" in context:
            context["body"] = context["body"].replace(wrong, right)
