"""What a line must not break stays together; a name in a table breaks between its parts."""

from __future__ import annotations

import pytest

from tests.book.sphinx_book import build_pages, prose, shown

PREFIX = "application/papermill.record/"
TEXT = """# Page

A window of 48 × 48 takes 3 GiB, 12 % of {glue:text}`much:.1f` dB, {glue:text}`much:.0f` %, at
{math}`x^2`, and 4 dBm or 2 % 3.

Excluded (p = 0.02), 29 · 10⁹ bytes (p = {glue:text}`much:.1f`), dip = 3, w = v.
At {math}`x` = 7 it is {math}`y` = {glue:text}`much:.1f`.

`a 48 × 48 b --many`

| code |
|---|
| `taylorir.attention.taylor_sums` and `tests/book/test_book.py` |
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    source = tmp_path_factory.mktemp("source")
    glued = shown({f"{PREFIX}text/plain": "2.5"}, scrapbook={"name": "much", "mime_prefix": PREFIX})
    cells = (
        "<caption>PSNR-Y, well-known</caption><tr><td>net_x</td><td>figs/an_image.png 3.5/0.25 9_8</td></tr>"
    )
    results = shown({"text/html": f"<table>{cells}</table>"})
    said = build_pages(source, {"a_page": [prose(TEXT), glued, results]}, "unbroken")
    assert all("myst-nb.lexer" in line for line in said.splitlines() if "a_page" in line)
    return (source / "_build/a_page.html").read_text()


def test_numbers_keep_their_units_and_sizes_their_sign(page):
    for kept in (
        "48\xa0×\xa048",
        "3\xa0GiB",
        "12% of",
        "4 dBm",
        "2% 3",
        "(p\xa0=\xa00.02)",
        "29\xa0·\xa010⁹",
    ):
        assert kept in page
    assert '<span class="pasted-text unbroken">2.5</span>\xa0dB' in page
    assert '<span class="pasted-text unbroken">2</span>%' in page
    assert '(p\xa0=\xa0<span class="pasted-text unbroken">2.5</span>)' in page
    assert "dip = 3, w = v" in page
    assert "\\(x\\)</span>\xa0=\xa07 it" in page
    assert '\\(y\\)</span>\xa0=\xa0<span class="pasted-text unbroken">2.5</span>' in page
    assert "48 × 48" not in page.replace('<span class="pre">', "").split("<code")[0]


def test_code_is_left_as_it_is_but_breaks_between_its_parts_in_a_table(page):
    first, table, _ = page.split("<table")
    assert '<span class="pre">48</span> <span class="pre">×</span>' in first
    assert '<span class="pre unbroken">--many</span>' in first
    assert "taylorir.<wbr>attention.<wbr>taylor_<wbr>sums" in table
    assert "tests/<wbr>book/<wbr>test_<wbr>book.<wbr>py" in table


def test_a_name_among_results_breaks_and_a_number_does_not(page):
    assert "<tr><td>net_x</td>" in page
    assert "<td>figs/<wbr>an_<wbr>image.png 3.5/0.25 9_8</td>" in page
    assert '<caption><span class="unbroken">PSNR-Y</span>, well-known</caption>' in page


def test_a_formula_keeps_the_comma_after_it(page):
    assert (
        '<span class="unbroken"><span class="math notranslate nohighlight">\\(x^2\\)</span>,</span> and'
        in page
    )
