"""A glued number that is zero at the digits shown has no sign: 0.00, not -0.00 nor +0.00."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from taylorir.report.tables import without_sign_of_zero


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", _drop_signs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _drop_signs(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for glued in doctree.findall(nodes.inline):
        if "pasted-text" in glued["classes"]:
            for text in list(glued.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(without_sign_of_zero(text.astext())))
