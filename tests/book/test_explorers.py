"""The figures with dials, in a browser and from a folder: keyboard, touch, and the numbers of the library."""

from __future__ import annotations

import json
import re

import pytest

from taylorir.attention import crossover_flops, crossover_memory
from taylorir.cost import cost_parity, form_rows
from taylorir.fidelity import max_weight_ratio, scene_rows, total_variation_bound
from tests.book.browser import Page, browse
from tests.book.test_book import BOOK, BROWSER

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
VALUES = """JSON.stringify(Object.fromEntries([...document.querySelectorAll('[data-explorer=KIND] data')].map(
  cell => [cell.dataset.at, [cell.value === '' ? null : Number(cell.value), cell.textContent]])))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browse(BROWSER, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Page:
    (path,) = BOOK.rglob("15_by_hand.html")
    tab.show_as()
    tab.open(path.as_uri())
    return tab


def values(page: Page, kind: str) -> dict[str, tuple[float | None, str]]:
    return json.loads(page.evaluate(VALUES.replace("KIND", kind)))


def turn(page: Page, kind: str, **settings: float) -> None:
    """Put dials where they are wanted, as a hand would: each tells of its change."""
    for name, value in settings.items():
        find = f"document.querySelector('[data-explorer={kind}] input[name={name}]')"
        page.evaluate(f"{find}.value = {value}; {find}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def expected_weights(temperature: float, num_tokens: int) -> dict[str, float]:
    wanted = {
        "tokens": num_tokens,
        "temperature": temperature,
        "bound": float(total_variation_bound(temperature)),
        "ratio_softmax": max_weight_ratio(temperature, order=None),
        "ratio_taylor": max_weight_ratio(temperature),
    }
    for row in scene_rows(temperature, num_tokens).to_dict("records"):
        wanted |= {f"{row['key']}.{name}": row[name] for name in ("softmax", "taylor", "apart")}
    return wanted


def expected_costs(window: int, head_dim: int, num_heads: int) -> dict[str, float]:
    wanted = {
        "tokens": window**2,
        "n0": crossover_flops(head_dim),
        "n1": crossover_memory(head_dim),
        "parity": cost_parity(head_dim),
        "parity_published": cost_parity(head_dim, "taylor_published"),
    }
    for row in form_rows(window, head_dim, num_heads).to_dict("records"):
        wanted |= {f"{row['method']}.{name}": row[name] for name in ("operations", "held")}
    return wanted


def check(page: Page, kind: str, wanted: dict[str, float]) -> None:
    seen = values(page, kind)
    for name, value in wanted.items():
        number = float("nan") if seen[name][0] is None else seen[name][0]
        assert number == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), (kind, name)


@pytest.mark.parametrize(
    ("temperature", "num_tokens"), [(1, 64), (0.1, 2), (2.5, 3), (4, 17), (8, 2304), (1, 2304)]
)
def test_the_weights_are_those_of_the_library(page, temperature, num_tokens):
    turn(page, "weights", temperature=temperature, num_tokens=num_tokens)
    check(page, "weights", expected_weights(temperature, num_tokens))


@pytest.mark.parametrize(
    ("window", "head_dim", "num_heads"), [(48, 30, 6), (2, 2, 1), (9, 10, 4), (96, 64, 12)]
)
def test_the_costs_are_those_of_the_library(page, window, head_dim, num_heads):
    turn(page, "costs", window_size=window, head_dim=head_dim, num_heads=num_heads)
    check(page, "costs", expected_costs(window, head_dim, num_heads))


def test_the_page_holds_without_a_script_what_the_script_shows_first(page):
    source = next(BOOK.rglob("15_by_hand.html")).read_text(encoding="utf-8")
    figures = re.findall(r'<figure class="tir-explorer" data-explorer="(\w+)".*?</figure>', source, re.S)
    assert figures == ["weights", "costs"]
    for kind in figures:
        figure = re.search(rf'data-explorer="{kind}".*?</figure>', source, re.S).group()
        held = re.findall(
            r'<data value="([^"]*)" data-at="([^"]+)" data-format="[^"]+">([^<]*)</data>', figure
        )
        shown = values(page, kind)
        assert {key for _, key, _ in held} == set(shown)
        for value, key, text in held:
            assert text == shown[key][1], key
            assert (value == "") == (shown[key][0] is None), key
            assert value == "" or float(value) == pytest.approx(shown[key][0], rel=1e-6), key


@pytest.mark.parametrize(
    ("kind", "dial", "first", "step"), [("weights", "temperature", 1, 0.1), ("costs", "head_dim", 30, 1)]
)
def test_dials_turn_by_keyboard(page, kind, dial, first, step):
    page.evaluate(f"document.querySelector('[data-explorer={kind}] input[name={dial}]').focus()")
    for key, times, moved in (("ArrowRight", 3, 3), ("ArrowLeft", 5, -2)):
        page.press(key, times)
        at = first + moved * step
        wanted = expected_weights(at, 64) if kind == "weights" else expected_costs(48, at, 6)
        check(page, kind, wanted)
    page.press("Home")
    check(page, kind, expected_weights(0.1, 64) if kind == "weights" else expected_costs(48, 2, 6))


DRAWN = "new Promise(then => requestAnimationFrame(() => requestAnimationFrame(() => then(true))))"


def test_dials_turn_by_touch(page):
    page.show_as(width=390, height=844)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    find = "document.querySelector('[data-explorer=weights] input[name=temperature]')"
    page.evaluate(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    before = values(page, "weights")["temperature"][0]
    try:
        for _ in range(5):  # a touch goes by what was drawn last, and the first ones may be lost
            page.evaluate(DRAWN)
            box = json.loads(page.evaluate(f"JSON.stringify({find}.getBoundingClientRect())"))
            middle = box["top"] + box["height"] / 2
            for kind, at in (("touchStart", 0.3), ("touchMove", 0.5), ("touchEnd", None)):
                points = [] if at is None else [{"x": box["left"] + at * box["width"], "y": middle}]
                page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
                page.evaluate(DRAWN)
            seen = values(page, "weights")["temperature"][0]
            if seen != before:
                break
    finally:
        page.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert seen == pytest.approx(4.05, abs=0.3)  # the middle of 0.1..8
    check(page, "weights", expected_weights(seen, 64))


def test_dials_have_names_a_voice_and_a_drawing_and_nothing_is_loaded(page):
    seen = json.loads(
        page.evaluate("""JSON.stringify([...document.querySelectorAll('.tir-explorer')].map(figure => [
          [...figure.querySelectorAll('input')].map(input => input.labels[0].textContent.trim().length > 4),
          figure.querySelectorAll('p[aria-live=polite]').length,
          figure.querySelector('[role=img]').getAttribute('aria-label').split(' ').length > 10,
          figure.querySelectorAll('.tir-drawing svg path.line').length,
          document.getElementById(figure.getAttribute('aria-labelledby')).textContent.length > 20,
        ]))""")
    )
    assert seen == [[[True] * 2, 1, True, 3, True], [[True] * 3, 1, True, 4, True]]
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests)
    assert page.errors == []


def test_only_the_page_with_dials_loads_their_script():
    shown = [path for path in BOOK.rglob("*.html") if "_modules" not in path.parts]  # there it is quoted
    pages = {path.name: path.read_text(encoding="utf-8") for path in shown}
    loading = [name for name, text in pages.items() if re.search(r'src="[^"]*explorers\.js', text)]
    assert loading == ["15_by_hand.html"]
