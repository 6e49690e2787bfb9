"""What a line must not break stays together, and what a table may break does so between the parts of a name."""

from __future__ import annotations

import json

import pytest

from tests.book.browser import browse, find_browser
from tests.book.sphinx_book import build_pages, prose, shown
from tests.book.test_book import BOOK

BROWSER = find_browser()
PREFIX = "application/papermill.record/"
TEXT = """# Page

A window of 48 × 48 takes 3 GiB, 12 % of {glue:text}`much:.1f` dB, at $x^2$, and 4 dBm or 2 % 3.

`a 48 × 48 b`

| code |
|---|
| `taylorir.attention.taylor_sums` and `tests/book/test_book.py` |
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    source = tmp_path_factory.mktemp("source")
    glued = shown({f"{PREFIX}text/plain": "2.5"}, scrapbook={"name": "much", "mime_prefix": PREFIX})
    said = build_pages(source, {"a_page": [prose(TEXT), glued]}, "unbroken")
    assert "a_page" not in said
    return (source / "_build/a_page.html").read_text()


def test_numbers_keep_their_units_and_sizes_their_sign(page):
    for kept in ("48\xa0×\xa048", "3\xa0GiB", "12\xa0% of", "4 dBm", "2\xa0% 3"):
        assert kept in page
    assert '<span class="pasted-text unbroken">2.5</span>\xa0dB' in page
    assert "48 × 48" not in page.replace('<span class="pre">', "").split("<code")[0]


def test_code_is_left_as_it_is_but_breaks_between_its_parts_in_a_table(page):
    first, table = page.split("<table")
    assert '<span class="pre">48</span> <span class="pre">×</span>' in first
    assert "taylorir.<wbr>attention.<wbr>taylor_<wbr>sums" in table
    assert "tests/<wbr>book/<wbr>test_<wbr>book.<wbr>py" in table


def test_a_formula_keeps_the_comma_after_it(page):
    assert (
        '<span class="unbroken"><span class="math notranslate nohighlight">\\(x^2\\)</span>,</span> and'
        in page
    )


SMALL = """Promise.all([...document.querySelectorAll('.bd-article img.drawing, .bd-article img[src$=".svg"]')].map(
  image => fetch(image.src).then(answer => answer.text()).then(text => {
    const drawn = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
    const scale = image.getBoundingClientRect().width / drawn.viewBox.baseVal.width;
    const sizes = [...drawn.querySelectorAll('g[id^="text_"] > g')].map(
      group => (group.getAttribute('transform') || '').match(/scale\\(([\\d.]+)/)).filter(found => found);
    const letters = sizes.map(found => 100 * Number(found[1]) * scale).filter(size => size > 0);
    return [image.alt.slice(0, 60), letters.length ? Math.min(...letters) : 99];
  }))).then(found => JSON.stringify(found))"""


@pytest.mark.book
@pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "least"), [(1400, 7.0), (420, 5.5)])
def test_letters_in_figures_can_be_read(tmp_path, width, least):
    from tests.book.browser import served

    small = {}
    with served(BOOK) as address, browse(BROWSER, tmp_path / "profile") as page:
        page.show_as(width=width, height=900)
        for path in sorted((BOOK / "_executed").glob("*.html")):
            page.open(f"{address}_executed/{path.name}")
            for alt, size in json.loads(page.evaluate(SMALL)):
                if size < least:
                    small[path.stem, alt] = round(size, 1)
    assert small == {}
