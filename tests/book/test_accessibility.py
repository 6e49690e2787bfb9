"""axe-core on the built pages, light and dark: no serious or critical finding."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from tests.book.browser import browse
from tests.book.test_book import BOOK, BROWSER

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
PAGES = ("intro", "method", "_executed/15_by_hand", "symbols", "build_on", "bibliography")  # one of each kind
# Mathematics is the business of MathJax; in the dark only colours are others.
FOUND = """axe.run({exclude: [['mjx-container']]}, OPTIONS).then(found => JSON.stringify(
  found.violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(
    one => [one.id, one.nodes.slice(0, 3).map(node => node.html.slice(0, 160))])))"""
OPTIONS = {"light": "{resultTypes: ['violations']}", "dark": "{runOnly: ['color-contrast']}"}


@pytest.fixture(scope="module")
def axe() -> str:
    files = importlib.metadata.files("axe-core-python") or []
    return next(file.locate() for file in files if file.name == "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", OPTIONS)
def test_no_page_has_a_serious_fault(tmp_path, axe, scheme):
    faults = {}
    with browse(BROWSER, tmp_path / "profile") as page:
        page.show_as(scheme=scheme)
        for name in PAGES:
            page.open((BOOK / f"{name}.html").as_uri())
            page.evaluate(axe + ";document.getAnimations().forEach(one => one.finish());1")  # colours fade in
            for fault, nodes in json.loads(page.evaluate(FOUND.replace("OPTIONS", OPTIONS[scheme]))):
                faults[name, fault] = nodes
    assert faults == {}
