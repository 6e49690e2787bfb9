"""What a line must not break: a number and its unit, a size, a value, a formula and the full stop after it.

A per cent sign follows its number at once, in prose as in tables. A name of an option stays whole.
A name in a table may break after a dot, a slash or a dash below instead, and nowhere else; a name that begins
a row of results stays whole. A figure says
how wide it was made (``inches-8``): a narrow screen scrolls it instead of making its letters unreadable.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

NO_BREAK = "\N{NO-BREAK SPACE}"
UNITS = r"(?:dB|GiB|KiB|MiB|ms)"
PER_CENT = re.compile(r"(?<=\d) %")
PER_CENT_AFTER_NUMBER = re.compile(r"^ %")
VALUE = r"(?<![\w-])[A-Za-z] = (?=[-+−]?\d|$)"
JOINTS = re.compile(rf"(?<=\d) ([×x·]) (?=\d|$)|(?<=\d) (?={UNITS}(?:\W|$))|{VALUE}")
JOINTS_AFTER_NUMBER = re.compile(rf"^ ([×x·]) (?=\d|$)|^ (?={UNITS}(?:\W|$))")
EQUALS_AFTER_MATH = re.compile(r"^ = (?=[-+−]?\d|$)")
NUMBER = re.compile(r"[-+−]?\d[\d.,]*(e[-+]?\d+)?%?")
CLOSING = re.compile(r"[.,;:!?)\]]+")
VERBATIM = (nodes.FixedTextElement, nodes.literal, nodes.raw, nodes.math, nodes.math_block)
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
CODE = re.compile(r'(<span class="pre">)([^<]*)(</span>)')
CELL = re.compile(r"(?<!<tr>)(<td>)([^<]*)(</td>)")
CAPTION, SCORE = re.compile(r"<caption>.*?</caption>", re.DOTALL), re.compile(r"\b(?:PSNR|SSIM)-Y\b")
OPTION = re.compile(r'<span class="pre">(?=-)')
BREAKS = re.compile(r"(?<=[\w)\]])([./_])(?=\w)")
BREAKS_OF_A_NAME = re.compile(r"(?<=\w)([/_])(?=[A-Za-z])")
SVG_WIDTH = re.compile(r'<svg[^>]*? viewBox="0 0 ([\d.]+) ')
PIXELS_PER_INCH = 160
"""Of the pictures, see ``taylorir.report.tables``."""
WIDE = 5.5
"""Inches; what is narrower fits any screen."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", _keep_together)
    app.connect("doctree-resolved", _say_width_of_figures)
    app.connect("html-page-context", _let_names_break)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def joined(text: str, *, after_number: bool = False) -> str:
    """The text with no-break spaces around the sign of a size and before a unit, and none before a %.

    Args:
        text: of one node.
        after_number: the node before it is a number, so that a sign or a unit may begin the text.
    """

    def join(found: re.Match[str]) -> str:
        return found[0].replace(" ", NO_BREAK)

    if after_number:
        text = JOINTS_AFTER_NUMBER.sub(join, PER_CENT_AFTER_NUMBER.sub("%", text))
    return JOINTS.sub(join, PER_CENT.sub("%", text))


def _keep_together(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for parent in list(doctree.findall(nodes.TextElement)):
        if isinstance(parent, VERBATIM):
            continue
        before: nodes.Node | None = None
        children: list[nodes.Node] = []
        for child in parent.children:
            if isinstance(child, nodes.Text):
                text = joined(child.astext(), after_number=_is_number(before))
                if isinstance(before, nodes.math):
                    text = EQUALS_AFTER_MATH.sub(f"{NO_BREAK}={NO_BREAK}", text)
                    if stop := CLOSING.match(text):
                        children[-1] = nodes.inline("", "", before, nodes.Text(stop[0]), classes=["unbroken"])
                        text = text[stop.end() :]
                child = nodes.Text(text)
            elif _is_number(child):
                child["classes"].append("unbroken")
            children.append(child)
            before = child
        parent.children = []
        parent.extend(children)


def _is_number(node: nodes.Node | None) -> bool:
    glued = isinstance(node, nodes.inline) and "pasted-text" in node["classes"]
    return glued and NUMBER.fullmatch(node.astext()) is not None


def inches(path: Path) -> float:
    """How wide a figure was made; 0 for what does not say so."""
    if path.suffix == ".svg":
        found = SVG_WIDTH.search(path.read_text(encoding="utf-8")[:2000])
        return float(found[1]) / 72 if found else 0.0
    if path.suffix in (".png", ".webp"):
        with Image.open(path) as picture:
            return picture.width / PIXELS_PER_INCH
    return 0.0


def _say_width_of_figures(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir, image["uri"])
        width = inches(path) if path.is_file() else 0.0
        if width >= WIDE:
            image["classes"].append(f"inches-{math.ceil(width)}")


def _let_names_break(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    def broken(found: re.Match[str], breaks: re.Pattern[str]) -> str:
        return found[1] + breaks.sub(r"\1<wbr>", found[2]) + found[3]

    def in_table(found: re.Match[str]) -> str:
        text = CODE.sub(functools.partial(broken, breaks=BREAKS), found[0])
        text = CELL.sub(functools.partial(broken, breaks=BREAKS_OF_A_NAME), text)
        return CAPTION.sub(
            lambda caption: SCORE.sub(r'<span class="unbroken">\g<0></span>', caption[0]), text
        )

    if "body" in context:
        context["body"] = OPTION.sub('<span class="pre unbroken">', context["body"])
        context["body"] = TABLE.sub(in_table, context["body"])
