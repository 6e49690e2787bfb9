"""A claim says no more than its rows: verdicts beside verdicts, and no length of a training by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.book.glued import EXECUTED, ROLE, glued_values, needs_notebooks
from tests.book.test_words import NOTEBOOKS, PAGES, prose

ROOT = Path(__file__).resolve().parents[2]
#: What a row of the table of claims may not say, by the class of its verdict.
AGAINST = {
    "holds": {"worse", "less", "cannot say", "not measured"},
    "fails": {"better", "more"},
    "open": {"better", "more"},
    "partly": set(),
}
BADGE = re.compile(r'class="verdict (\w+)"')
#: "trained for minutes", "a budget of hours": how long is glued, as it changes with the rows.
BY_HAND = re.compile(r"\b(?:train(?:ed|ing)|budget|recipe)\b[^.`]{0,40}\b(?:minutes|hours|days|weeks)\b")


def contradicted(page: str, values: dict[str, str]) -> list[str]:
    """The verdicts in the rows of a table of claims that their badges rule out, as ``badge: verdict``."""
    found = []
    for row in re.split(r"^\* - ", page, flags=re.M):
        if len(badges := BADGE.findall(row)) == 1:
            said = {values[key].strip("'") for _, key, _ in ROLE.findall(row) if key.endswith("_verdict")}
            found += [f"{badges[0]}: {verdict}" for verdict in sorted(said & AGAINST[badges[0]])]
    return found


def one_sided(text: str, key: str, other: str) -> bool:
    """Whether a text shows one glued value and not the other."""
    keys = {found for _, found, _ in ROLE.findall(text)}
    return key in keys and other not in keys


def test_the_checks_by_hand():
    row = '* - A claim.\n  - <span class="verdict {}">x</span>\n  - {{glue:text}}`n.ipynb::a_verdict:s`\n'
    assert contradicted(row.format("holds"), {"a_verdict": "'cannot say'"}) == ["holds: cannot say"]
    assert contradicted(row.format("open"), {"a_verdict": "'better'"}) == ["open: better"]
    assert contradicted(row.format("open"), {"a_verdict": "'worse'"}) == []
    assert one_sided("{glue:text}`a`", "a", "b")
    assert not one_sided("{glue:text}`a` {glue:text}`b:s`", "a", "b")
    assert BY_HAND.search("networks, trained for minutes") and BY_HAND.search("At a budget of hours")
    assert not BY_HAND.search("trained with a constant rate. It took minutes")


@needs_notebooks
def test_no_badge_says_otherwise_than_the_verdicts_in_its_row():
    page = (ROOT / "book/verdict.md").read_text(encoding="utf-8")
    values = {key: text for glued in glued_values(EXECUTED).values() for key, text in glued.items()}
    assert sum(key.endswith("_verdict") for _, key, _ in ROLE.findall(page)) >= 5
    assert contradicted(page, values) == []


@pytest.mark.parametrize(
    ("path", "between"),
    [
        (ROOT / "book/intro.md", "\n| "),
        (ROOT / "book/verdict.md", "\n* - "),
        (ROOT / "notebooks/07_quality.ipynb", "\n:::\n"),
    ],
    ids=["intro", "verdict", "box"],
)
def test_the_main_verdict_stands_beside_that_of_all_questions_together(path, between):
    page = next(iter(prose(path).values()))  # of a chapter its first cell, which begins with the box
    shown = [part for part in page.split(between) if "quality_mid_verdict" in part]
    assert len(shown) == 1 and not one_sided(shown[0], "quality_mid_verdict", "quality_joint_verdict")


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_how_long_a_training_took_is_not_typed(path):
    said = {name: found[0] for name, text in prose(path).items() if (found := BY_HAND.search(text))}
    assert said == {}
