"""``{answer}``: what a chapter finds, in its first screen; a part that is missing is an error of the build.

The question is the argument; ``figure`` names the deciding figure, which a cell of the chapter glued
(``report.glue_figure``), and ``alt`` says what it shows. The content is a paragraph that answers, with its
number and interval; two fields, "Would change our mind" and "Does not show"; the caption of the figure.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.core.variables import RetrievalError, render_variable_outputs
from myst_nb.ext.glue.utils import retrieve_glue_data
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FIELDS = ("Would change our mind", "Does not show")
LEAST_WORDS_OF_ALT = 4


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("answer", Answer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Answer(SphinxDirective):
    """The box: question, answer, what would change it, what it leaves open; beside them the figure."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"figure": directives.unchanged_required, "alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        if set(self.options) != set(self.option_spec):
            raise self.error(f"answer: expected the options {', '.join(self.option_spec)}")
        if len(self.options["alt"].split()) < LEAST_WORDS_OF_ALT:
            raise self.error("answer: alt does not say what the figure shows")
        answer, fields, caption = self._content()
        question, messages = self.state.inline_text(self.arguments[0], self.lineno)
        text = nodes.container(classes=["tir-answer-text"])
        text += nodes.paragraph("", "", *question, classes=["tir-question"])
        answer["classes"].append("tir-found")
        text += [answer, fields]
        box = nodes.container(classes=["tir-answer"])
        box += [text, self._figure(caption)]
        return [box, *messages]

    def _content(self) -> tuple[nodes.paragraph, nodes.field_list, nodes.paragraph]:
        parts = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, parts)
        kinds = [type(part) for part in parts]
        if kinds != [nodes.paragraph, nodes.field_list, nodes.paragraph]:
            raise self.error("answer: expected a paragraph that answers, a list of fields, and a caption")
        names = tuple(field[0].astext() for field in parts[1])
        if names != FIELDS or not all(field[1].astext() for field in parts[1]):
            raise self.error(f"answer: got the fields {names}, expected {FIELDS}, each with a text")
        return tuple(parts.children)

    def _figure(self, caption: nodes.paragraph) -> nodes.figure:
        key = self.options["figure"]
        try:
            data = retrieve_glue_data(self.state.document, key)
        except RetrievalError:
            raise self.error(f"answer: no cell of this page glued a figure {key!r}") from None
        kind = "drawing" if "image/svg+xml" in data.data else "picture"
        image = {"alt": self.options["alt"], "classes": kind}
        shown = render_variable_outputs(
            [data], self.state.document, self.lineno, self.env.docname, render={"image": image}
        )
        figure = nodes.figure("", *shown, nodes.caption("", "", *caption.children))
        self.set_source_info(figure)
        return figure
