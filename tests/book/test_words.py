"""Plain words: "per" where "a" would be read twice, and every special word leads to where it is explained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
COUNTED = (
    "dB|ms|MiB|tokens?|operations|products|features|channels|levels|pixels|bytes|crops?|rows?|lines?"
    "|panels?|colours?|columns?|minutes?|hours?|seconds|one|cost"
)
EACH = (
    "token|step|window|head|pixel|second|byte|dtype|order|degradation|network|seed|image|comparison|side"
    "|benchmark set|method|panel|training|region|LR pixel"
)
#: What a page says, and the entry of the glossary that it then leads to.
EXPLAINED = {
    r"\bmini\b": "mini tier",
    r"\bmid\b": "mid tier",
    r"\bupcycled": "upcycled",
    r"\bcheckpoint(?:ed|ing)\b": "checkpointed",
    r"\bdetectable\b": "detectable difference",
    r"\bFlexAttention\b": "FlexAttention",
    r"\blow-rank bias\b": "low-rank bias",
    r"\b[Tt]otal variation\b": "total variation",
    r"\bNIQE\b": "NIQE",
    r"\bHolm\b": "Holm's correction",
    r"\bGMACs?\b": "GMAC",
    r"\b(?:half precision|b?float16)\b": "half precision",
    r"\bragged\b": "ragged border",
    r"\bLanczos\b": "Lanczos",
    r"\bp-values?\b": "p-value",
    r"\b95 ?% intervals?\b": "95 % interval",
    r"\bmoving average\b": "moving average",
    r"\bAdam\b": "Adam",
    r"\bpixel shuffle\b": "pixel shuffle",
    r"\bwarm-up\b": "warm-up",
    r"\b[Dd]istillation\b": "distillation",
}
DISTRIBUTED = re.compile(rf"\b(?:{COUNTED})\s+an?\s+(?:{EACH})\b")


def prose(path: Path) -> dict[str, str]:
    """What a reader sees of a page, or of a notebook's prose, captions, labels and alternative texts."""
    if path.suffix == ".md":
        return {path.name: path.read_text(encoding="utf-8")}
    found = {}
    for cell in nbformat.read(path, 4).cells:
        shown = cell.metadata.get("mystnb", {})
        words = [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
        found[f"{path.stem}, {cell.id}"] = "\n".join([cell.source, *words])
    return found


def labels(source: str) -> list[str]:
    """The strings of a module, or of a cell, that are no docstrings."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
    return [node.value for node in constants if isinstance(node.value, str)]


def missing(text: str) -> set[str]:
    """The entries of the glossary whose words a page says without leading there."""
    led = {target or word for word, target in re.findall(r"\{term\}`([^`<]+?)(?: <([^`]+)>)?`", text)}
    said = re.sub(r"(?:\{[^}`]*\})?`[^`]*`", "", text)  # neither names of values nor code, nor the leads
    return {entry for word, entry in EXPLAINED.items() if re.search(word, said)} - led


def test_the_pattern_by_hand():
    assert DISTRIBUTED.search("30 channels a head") and DISTRIBUTED.search("operations\na second")
    assert not DISTRIBUTED.search("channels per head, memory of a head")


def test_words_that_lead_nowhere_by_hand():
    assert missing("{term}`mini <mini tier>` and mid, `upcycled`, {glue:text}`a_upcycled`") == {"mid tier"}
    assert missing("{term}`mini tier`, then mid networks; {term}`mid tier`") == set()


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_prose_says_per(path):
    assert {
        place: found[0] for place, text in prose(path).items() if (found := DISTRIBUTED.search(text))
    } == {}


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_special_words_lead_to_where_they_are_explained(path):
    if path.stem in ("symbols", "crosswalk"):
        return
    text = "\n".join(prose(path).values())
    assert missing(text) == set()


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.stem)
def test_chapters_are_called_by_their_names(path):  # a reader sees other numbers than those of the files
    assert [text for text in prose(path).values() if re.search(r"\b[Cc]hapters? \d", text)] == []


def test_the_glossary_has_the_words_that_pages_lead_to():
    glossary = (ROOT / "book/symbols.md").read_text(encoding="utf-8").partition("```{glossary}\n")[2]
    entries = re.findall(r"^(?! )(.+)$", glossary.partition("```")[0], re.MULTILINE)
    assert set(EXPLAINED.values()) <= set(entries) and entries[:-1] == sorted(entries[:-1], key=str.lower)


def test_labels_of_figures_say_per():
    modules = [*(ROOT / "taylorir/report").glob("*.py"), *(ROOT / "taylorir/experiments").glob("*.py")]
    said = [text for path in modules for text in labels(path.read_text(encoding="utf-8"))]
    assert modules and {text for text in said if DISTRIBUTED.search(text)} == set()


#: "95 %" beside the "95%" of a format, "8 x 8" beside "8 × 8".
OTHERWISE = re.compile(r"\d %|\d x \d")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_captions_write_per_cent_and_sizes_in_one_way(path):
    cells = nbformat.read(path, 4).cells
    said = [text for cell in cells if cell.cell_type == "code" for text in labels(cell.source)]
    said += [prose for cell in cells for prose in _shown(cell.metadata.get("mystnb", {}))]
    assert [text for text in said if OTHERWISE.search(text)] == []


def _shown(metadata: dict) -> list[str]:
    texts = [_shown(value) if isinstance(value, dict) else [str(value)] for value in metadata.values()]
    return [text for some in texts for text in some]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_writes_sizes_in_one_way(path):
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    assert [text for text in cells if re.search(r"(?<![\w.])\d+ x \d", text)] == []
