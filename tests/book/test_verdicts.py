"""The table of claims: all there without a script, filtered by keyboard with one."""

from __future__ import annotations

import json
import re

import pytest

from tests.book.browser import browse
from tests.book.test_book import BOOK, BROWSER

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]

SEEN = """JSON.stringify({
  rows: [...document.querySelectorAll('table.verdicts tbody tr')].filter(row => row.offsetHeight).map(
    row => row.querySelector('.verdict').textContent),
  pressed: [...document.querySelectorAll('.tir-filter [aria-pressed=true]')].map(b => b.dataset.verdict),
  said: document.querySelector('.tir-filter [role=status]').textContent,
})"""


@pytest.fixture
def page(tmp_path):
    with browse(BROWSER, tmp_path / "profile") as page:
        page.show_as()
        page.open((BOOK / "verdict.html").as_uri())
        yield page


def test_buttons_leave_the_claims_of_one_verdict_and_a_word_those_with_it(page):
    every = json.loads(page.evaluate(SEEN))
    count = len(every["rows"])
    assert count >= 12 and every["pressed"] == ["all"] and every["said"] == f"{count} of {count} claims"

    page.evaluate("document.querySelector('.tir-filter button').focus()")
    page.press("Tab")  # to the first verdict
    verdict = page.evaluate("document.activeElement.dataset.verdict")
    page.press("Space")
    chosen = json.loads(page.evaluate(SEEN))
    assert chosen["pressed"] == [verdict] and set(chosen["rows"]) == {verdict}
    assert len(chosen["rows"]) == every["rows"].count(verdict) < count

    field = "document.querySelector('.tir-filter input')"
    page.evaluate(f"{field}.value = 'no such word'; {field}.dispatchEvent(new Event('input'))")
    assert json.loads(page.evaluate(SEEN))["said"] == f"0 of {count} claims"
    assert page.errors == []


def test_each_claim_has_a_verdict_of_the_legend_and_a_chapter():
    text = (BOOK / "verdict.html").read_text(encoding="utf-8")
    legend, claims = re.findall(r"<table.*?</table>", text, re.DOTALL)[:2]
    known = set(re.findall(r'class="verdict \w+">([^<]+)<', legend))
    used = re.findall(r'class="verdict \w+">([^<]+)<', claims)
    assert set(used) <= known and len(known) == 4
    assert claims.count('href="_executed/') >= len(used)
