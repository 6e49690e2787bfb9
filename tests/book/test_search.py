"""The search of the built book, from a folder: it finds words that stand in tables only."""

from __future__ import annotations

import json
import time

import pytest

from tests.book.browser import browse
from tests.book.test_book import BOOK, BROWSER

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
# Words of the cells of a page's tables, each cell by itself, that its other text does not have. A name with
# underscores is one word to the search.
CELLS_ONLY = """(() => {
  const words = text => text.toLowerCase().match(/\\b[a-z]{6,}\\b/g) || [];
  const article = document.querySelector('.bd-article').cloneNode(true);
  const cells = [...article.querySelectorAll('.tir-table td')].flatMap(cell => words(cell.textContent));
  article.querySelectorAll('.tir-table').forEach(table => table.remove());
  const others = new Set(words(article.textContent));
  return JSON.stringify([...new Set(cells)].filter(word => !others.has(word)));
})()"""


def test_words_that_stand_in_tables_only_are_found_from_a_folder(tmp_path):
    searched = 0
    with browse(BROWSER, tmp_path / "profile") as page:
        page.show_as()
        for path in sorted((BOOK / "_executed").glob("*.html")):
            page.open(path.as_uri())
            words = sorted(json.loads(page.evaluate(CELLS_ONLY)), key=len)[-2:]  # common words are short
            for word in words:
                page.open(f"{(BOOK / 'search.html').as_uri()}?q={word}")
                assert path.name in results(page), (path.stem, word)
                searched += 1
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert searched >= 6


def results(page) -> list[str]:
    """Pages that the search names, once it says that it is done."""
    for _ in range(600):
        if page.evaluate("(document.querySelector('.search-summary') || {}).innerText"):
            break
        time.sleep(0.05)
    links = "[...document.querySelectorAll('ul.search a')].map(link => link.pathname)"
    return [path.rpartition("/")[2] for path in json.loads(page.evaluate(f"JSON.stringify({links})"))]
