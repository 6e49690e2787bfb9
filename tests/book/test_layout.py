"""Nothing on a page is cut: equations, tables and code, on a wide screen and on a phone."""

from __future__ import annotations

import json

import pytest

from tests.book.browser import browse
from tests.book.test_book import BOOK, BROWSER, CONTENT

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
WIDTHS = (1280, 1200, 420)
PAPER = 703
"""CSS pixels between the margins of a sheet of A4: 210 - 2 × 12 mm."""
BEYOND = """(() => {
  const seen = [...document.querySelectorAll('.bd-article :is(table, img, pre, div.math svg)')];
  return seen.filter(node => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1)
    .map(node => (node.closest('[id]') || {}).id);
})()"""
SEEN = """JSON.stringify((() => {
  const seen = selector => [...document.querySelectorAll(selector)].filter(node => node.checkVisibility());
  const name = node => node.id || (node.closest('[id]') || {}).id || node.textContent.trim().slice(0, 40);
  const right = node => node.getBoundingClientRect().right;
  const wider = node => node.scrollWidth > node.clientWidth + 1;
  const results = seen('.bd-article .tir-table');
  return {
    equations: seen('.bd-article div.math mjx-container > svg').length,
    cut: seen('.bd-article div.math mjx-container > svg').filter(
      svg => right(svg) > right(svg.closest('div.math')) + 1).map(name),
    small: seen('.bd-article mjx-container > svg').filter(
      svg => 1000 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width < LEAST).map(name),
    options: seen('.bd-article code .pre').filter(
      one => one.textContent.startsWith('-') && one.getClientRects().length > 1).map(one => one.textContent),
    scrolled: results.filter(wider).map(name),
    broken: seen('.bd-article .tir-table td').filter(cell => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      const lines = new Set([...range.getClientRects()].map(line => line.top)).size;
      return lines > 1 && !/[\\s/_.-]/.test(cell.textContent);
    }).map(cell => cell.textContent),
    prose: seen('.bd-article table.table').filter(
      table => wider(table.parentElement) || wider(table)).map(name),
    narrow: seen('.bd-article table.stacked td:first-child').filter(
      cell => innerWidth < 600 && cell.offsetWidth < 0.8 * innerWidth).map(name),
    loose: results.filter(table => [...table.querySelectorAll('tr > :first-child')].some(
      cell => getComputedStyle(cell).position !== 'sticky')).map(name),
    unruled: seen('.bd-article img[class*="inches-"]').filter(
      image => innerWidth < 600 && !getComputedStyle(image).getPropertyValue('--tir-made')).map(name),
  };
})())""".replace("LEAST", "13")
"""With 13 CSS pixels, the least height of the letters of an equation."""


def test_no_page_cuts_an_equation_a_table_or_an_option(tmp_path):
    equations, faults = 0, {}
    with browse(BROWSER, tmp_path / "profile") as page:
        for path in CONTENT:
            page.open(path.as_uri())
            for width in WIDTHS:
                page.show_as(width=width)
                seen = json.loads(page.evaluate(SEEN))
                equations += seen.pop("equations")
                if width < 1280:
                    seen.pop("scrolled")  # with its first column staying where it is
                faults |= {(path.stem, width, what): found for what, found in seen.items() if found}
    assert faults == {}
    assert equations > 3 * 20


def test_nothing_is_wider_than_a_sheet_of_paper(tmp_path):
    """Chromium prints all of a document smaller where one table of it does not fit."""
    with browse(BROWSER, tmp_path / "profile") as page:
        page.show_as(width=PAPER)
        page.call("Emulation.setEmulatedMedia", media="print")
        beyond = {}
        for path in CONTENT:
            page.open(path.as_uri())
            beyond |= {path.stem: found} if (found := page.evaluate(BEYOND)) else {}
    assert beyond == {}
