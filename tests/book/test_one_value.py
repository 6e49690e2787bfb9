"""One number has one value and one look, on whatever page it stands."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.book.glued import EXECUTED, Shown, glued_values, needs_notebooks, shown_values
from tests.book.test_book import CONTENT

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
MEANINGS = yaml.safe_load((ROOT / "tests/book/meanings.yaml").read_text())
SAME = {key: meaning for meaning, keys in MEANINGS["same"].items() for key in keys}
APART = {key for keys in MEANINGS["apart"].values() for key in keys}


def disagreeing(same: dict[str, str], values: dict[str, str]) -> list[str]:
    """The meanings whose keys have values that differ."""
    found = defaultdict(set)
    for key, meaning in same.items():
        if key in values:
            found[meaning].add(values[key])
    return [meaning for meaning, texts in found.items() if len(texts) > 1]


def looks(shown: list[Shown]) -> dict[str, set[str]]:
    """By key, the formats that it is shown in, where these are several; ``s`` and none are one."""
    forms = defaultdict(set)
    for one in shown:
        forms[one.key].add(one.form.removesuffix("s"))
    return {key: found for key, found in forms.items() if len(found) > 1}


def test_the_checks_by_hand():
    assert disagreeing({"a_n": "N", "b_n": "N"}, {"a_n": "931", "b_n": "930"}) == ["N"]
    assert disagreeing({"a_n": "N", "b_n": "N"}, {"a_n": "931", "b_n": "931"}) == []
    shown = [Shown("intro", "a", ".0%"), Shown("verdict", "a", "+.1%"), Shown("intro", "b", "s")]
    assert looks([*shown, Shown("verdict", "b", "")]) == {"a": {".0%", "+.1%"}}


def test_each_glued_value_has_one_format_throughout_the_book():
    shown = shown_values(PAGES)
    assert len(shown) > 200
    assert looks(shown) == {}


@needs_notebooks
def test_no_two_pages_disagree_on_what_means_the_same():
    by_notebook = glued_values(EXECUTED)
    values = {key: text for glued in by_notebook.values() for key, text in glued.items()}
    assert sum(map(len, by_notebook.values())) == len(values), "a key is glued by two notebooks"
    assert disagreeing(SAME, values) == []


@needs_notebooks
def test_keys_that_end_alike_are_told_to_mean_the_same_or_not():
    ends = defaultdict(set)
    for name, glued in glued_values(EXECUTED).items():
        for key in glued:
            ends[key.partition("_")[2]].add((name, key))
    unknown = {
        key
        for keys in ends.values()
        if len({name for name, _ in keys}) > 1
        for _, key in keys
        if key not in SAME and key not in APART
    }
    assert unknown == set(), "name them in tests/book/meanings.yaml"


@pytest.mark.book
@pytest.mark.skipif(not CONTENT, reason="no built book; run make smoke")
def test_no_page_shows_a_zero_with_a_sign():
    signed = re.compile(r">\s*[-+\u2212]0(\.0+)?\s*%?\s*<")
    assert [path.name for path in CONTENT if signed.search(path.read_text(encoding="utf-8"))] == []
