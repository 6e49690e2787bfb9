"""What several tables show, and sentences repeat, agrees to the digits that each of them shows."""

from __future__ import annotations

import html
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml

from tests.book.glued import EXECUTED, glued_values, needs_notebooks

ROOT = Path(__file__).resolve().parents[2]
MEANINGS = yaml.safe_load((ROOT / "tests/book/same_cells.yaml").read_text(encoding="utf-8"))
Row = dict[str, str]
Place = str | list


class Shown(NamedTuple):
    """A number as it is shown: its value, and the step of its last digit."""

    value: float
    step: float

    @classmethod
    def read(cls, text: str) -> Shown:
        digits, percent = text.strip().replace(",", "").removesuffix("%"), text.strip().endswith("%")
        mantissa, _, exponent = digits.lower().partition("e")
        scale = 10.0 ** int(exponent or 0) / (100 if percent else 1)
        return cls(float(mantissa) * scale, scale * 10.0 ** -len(mantissa.partition(".")[2]))


def agree(first: Shown, second: Shown) -> bool:
    """Whether both can be roundings of one number."""
    if first.step == second.step:
        return first.value == pytest.approx(second.value, abs=first.step / 1e6)
    return abs(first.value - second.value) <= (first.step + second.step) / 2 * (1 + 1e-9)


def text(markup: str) -> str:
    return html.unescape(re.sub(r"<.*?>", "", markup))


def tables(notebook: nbformat.NotebookNode) -> dict[str, list[Row]]:
    """The rows of each named table of results, as texts by heading."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            markup = "".join(output.get("data", {}).get("text/html", ""))
            if not (name := re.match(r'<div class="tir-table" id="([\w-]+)">', markup)):
                continue
            headings = [text(one) for one in re.findall(r"<th [^>]*>(.*?)</th>", markup)]
            lines = re.findall(r"<tr>(.*?)</tr>", markup.partition("<tbody>")[2])
            cells = [[text(one) for one in re.findall(r"<td[^>]*>(.*?)</td>", line)] for line in lines]
            found[name[1]] = [dict(zip(headings, line, strict=True)) for line in cells]
    return found


def look_up(place: Place, shown: dict[str, list[Row]], glued: dict[str, str]) -> Shown:
    """What stands at a place.

    Raises:
        LookupError: there is no such value, table, row or column, or more than one row.
    """
    if isinstance(place, str):
        return Shown.read(glued[place])
    name, row, column, *part = place
    rows = [line for line in shown[name] if all(line[heading] == said for heading, said in row.items())]
    if len(rows) != 1:
        raise LookupError(f"{name} has {len(rows)} rows with {row}, expected 1")
    cell = rows[0][column]
    return Shown.read(cell.split(" / ")[part[0]] if part else cell)


def filled(place: Place, values: dict[str, object]) -> Place:
    if isinstance(place, str):
        return place.format(**values)
    name, row, column, *part = place
    row = {heading: said.format(**values) for heading, said in row.items()}
    return [name, row, column.format(**values), *part]


def cases() -> dict[str, tuple[list[Place], dict[str, object]]]:
    """By meaning, its places and what fills their braces."""
    found = {}
    for meaning, entry in MEANINGS.items():
        each = entry.get("each", {})
        for values in itertools.product(*each.values()):
            bound = dict(zip(each, values, strict=True))
            found[meaning.format(**bound)] = (entry["places"], bound)
    return found


@pytest.fixture(scope="module")
def shown() -> tuple[dict[str, list[Row]], dict[str, str]]:
    """All tables, and all glued values, of the executed notebooks."""
    found: dict[str, list[Row]] = {}
    for path in sorted(EXECUTED.glob("*.ipynb")):
        found |= tables(nbformat.read(path, 4))
    glued = glued_values(EXECUTED)
    return found, {key: text for values in glued.values() for key, text in values.items()}


def test_numbers_agree_by_hand():
    read = Shown.read
    assert read("1,234") == (1234, 1) and read("34%") == (0.34, 0.01) and read("8.1e-04").value == 8.1e-4
    assert agree(read("+34.3%"), read("34%")) and not agree(read("+34.3%"), read("35%"))
    assert agree(read("0.954999"), read("0.95")) and not agree(read("0.96"), read("0.95"))
    assert not agree(read("931"), read("930")) and agree(read("7,093"), read("7,092.6"))


def test_cells_are_looked_up_by_hand():
    head = '<th scope="col">set</th><th scope="col" class="number">a &amp; b</th>'
    body = (
        "<tr><td>Set5</td><td><strong>1.5</strong></td></tr>"
        '<tr><td>Set14</td><td class="number">2 / 3</td></tr>'
    )
    markup = f'<div class="tir-table" id="tab-a"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></div>'
    output = nbformat.v4.new_output("display_data", {"text/html": markup})
    found = tables(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))
    assert look_up(["tab-a", {"set": "Set5"}, "a & b"], found, {}).value == 1.5
    assert look_up(["tab-a", {"set": "Set14"}, "a & b", 1], found, {}).value == 3
    with pytest.raises(LookupError, match="0 rows"):
        look_up(["tab-a", {"set": "BSD100"}, "a & b"], found, {})


@needs_notebooks
@pytest.mark.parametrize("meaning", cases())
def test_no_two_places_disagree(meaning, shown):
    places, bound = cases()[meaning]
    found, glued = shown
    numbers = {key: int(text) for key, text in glued.items() if re.fullmatch(r"\d+", text)}
    at = [filled(place, {**numbers, **bound}) for place in places]
    assert len(at) > 1
    values = [look_up(place, found, glued) for place in at]
    pairs = itertools.combinations(zip(at, values, strict=True), 2)
    wrong = [(one, other) for (one, first), (other, second) in pairs if not agree(first, second)]
    assert wrong == []
