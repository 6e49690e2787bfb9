"""Tables of results, which cells show as HTML, get a number and a target as those of prose do.

``report.table(..., name="tab-memory")`` can then be referred to by ``{numref}`tab-memory```, from any page.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

TABLE = re.compile(
    r'(<div class="tir-table")(?: id="([\w-]+)")?(><table[^>]*><caption>)(.*?)(</caption>.*)', re.S
)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_enumerable_node(ResultTable, "table", _caption, html=(_visit, _depart))
    app.add_transform(NumberTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class ResultTable(nodes.General, nodes.Element):
    """A table that a cell shows: how its HTML begins, then the number, then the rest as a child.

    The child is raw HTML, which the search reads.
    """


class NumberTables(SphinxTransform):
    """Turn the HTML of such tables into nodes that Sphinx counts."""

    default_priority = 300

    def apply(self, **options: Any) -> None:
        for raw in list(self.document.findall(nodes.raw)):
            found = TABLE.fullmatch(raw.astext())
            if raw.get("format") != "html" or found is None:
                continue
            head, name, middle, caption, rest = found.groups()
            rest = nodes.raw("", caption + rest, format="html")
            table = ResultTable("", rest, head=head, middle=middle, caption=caption)
            if name:
                table["names"].append(nodes.fully_normalize_name(name))
                self.document.note_explicit_target(table, table)
            else:
                self.document.set_id(table)
            raw.replace_self(table)


def _caption(table: nodes.Element) -> str:
    return html.unescape(table["caption"])


def _visit(translator: Any, table: ResultTable) -> None:
    translator.body.append(f'{table["head"]} id="{table["ids"][0]}"{table["middle"]}')
    translator.add_fignumber(table)


def _depart(translator: Any, table: ResultTable) -> None:
    """Its child has ended the table."""
