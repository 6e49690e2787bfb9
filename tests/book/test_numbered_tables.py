"""Tables that cells show are counted with those of prose, and can be referred to."""

from __future__ import annotations

import pandas as pd
import pytest

from taylorir.report import table
from tests.book.sphinx_book import build_pages, prose, shown

ROWS = pd.DataFrame({"a": [1, 2]})
REFERENCE = "# Page\n\nSee {numref}`tab-second` and {numref}`tab-prose`.\n"
PROSE = ":::{list-table} In prose\n:name: tab-prose\n* - 1\n:::"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    first, second = (
        shown({"text/html": table(ROWS, caption=caption, name=name)._repr_html_(), "text/plain": "a"})
        for caption, name in (("First & best", ""), ("Second", "tab-second"))
    )
    pages = {
        "a_page": [prose("# A"), first, prose(PROSE), second],
        "b_page": [prose(REFERENCE), shown({"text/html": table(ROWS)._repr_html_()})],
    }
    return source / "_build", build_pages(source, pages, "numbered_tables")


def test_tables_are_counted_in_order_with_those_of_prose(built):
    page = (built[0] / "a_page.html").read_text()
    captions = ["Table 1 </span>First &amp; best", "Table 2 </span>", "Table 3 </span>Second"]
    places = [page.index(caption) for caption in captions]
    assert places == sorted(places) and page.count("caption-number") == 3
    assert "undefined" not in built[1]


def test_prose_refers_to_them_from_another_page_and_what_has_no_caption_has_no_number(built):
    page = (built[0] / "b_page.html").read_text()
    assert 'href="a_page.html#tab-second"><span class="std std-numref">Table 3<' in page
    assert 'href="a_page.html#tab-prose"><span class="std std-numref">Table 2<' in page
    assert "caption-number" not in page and '<div class="tir-table"><table>' in page
