"""Let the search find what stands in tables, and work from a folder.

The index takes the tags out of a notebook's tables and leaves nothing between two cells: one word is left.
Below each result the search shows a piece of the page, which a browser does not load from a folder.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

CELL_END = re.compile(r"</(?:td|th|caption|p|option|label)>(?!\s)")
WITHOUT_SUMMARY = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(PartCells)
    app.connect("html-page-context", _search_without_summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class PartCells(SphinxPostTransform):
    """A space behind each cell, after the outputs of notebooks have become HTML."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if "html" in node.get("format", "").split():
                text = CELL_END.sub(lambda match: match.group() + " ", node.astext())
                node.replace_self(nodes.raw("", text, format=node["format"]))


def _search_without_summary(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if page == "search":
        app.add_js_file(None, body=WITHOUT_SUMMARY)
