"""The built book, read as a reader does: offline, in a browser, light and dark, at the width of a phone.

``make test`` builds a book at preset "smoke" first; with ``TAYLORIR_BOOK`` another one is read.
"""

from __future__ import annotations

import html.parser
import json
import os
import re
from pathlib import Path

import pytest

from tests.book.browser import Page, browse, find_browser, served

ROOT = Path(__file__).resolve().parents[2]
BUILDS = (os.environ.get("TAYLORIR_BOOK"), ROOT / "_build/smoke/html", ROOT / "_build/html")
BOOK = next((Path(path) for path in BUILDS if path and (Path(path) / "index.html").is_file()), None)
PAGES = sorted(path for path in BOOK.rglob("*.html") if "_static" not in path.parts) if BOOK else []
CONTENT = [
    path
    for path in PAGES
    if path.name not in ("genindex.html", "search.html", "py-modindex.html", "index.html")
]
CONTENT = [path for path in CONTENT if "_modules" not in path.parts]
BROWSER = find_browser()

pytestmark = [pytest.mark.book, pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke")]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def address():
    with served(BOOK) as address:
        yield address


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browse(BROWSER, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def fresh(page: Page) -> Page:
    page.show_as()
    page.requests.clear(), page.failures.clear(), page.errors.clear()
    return page


class Tags(html.parser.HTMLParser):
    """All start tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


# --- without a browser ------------------------------------------------------------------------------


def test_no_page_loads_anything_from_elsewhere():
    loads = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}
    remote = []
    for path in PAGES:
        for tag, attributes in Tags(path).found:
            target = attributes.get(loads.get(tag, ""), "") or ""
            if re.match(r"(https?:)?//", target) and attributes.get("rel") != "canonical":
                remote.append(f"{path.relative_to(BOOK)}: <{tag}> {target}")
    assert remote == []


def test_every_image_has_an_alternative_text_and_is_there():
    images = [(path, attributes) for path in CONTENT for tag, attributes in Tags(path).found if tag == "img"]
    assert images
    for path, attributes in images:
        source = attributes["src"]
        logo = "logo" in (attributes.get("class") or "")
        assert logo or len((attributes.get("alt") or "").split()) >= 4, f"{path.name}: {source}"
        assert source.startswith("data:") or (path.parent / source).resolve().is_file(), source


def test_every_notebook_shows_results_and_hides_its_code():
    for path in (BOOK / "_executed").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        cells = re.findall(r'<div class="[^"]*\bcell\b[^"]*docutils container">', text)
        assert cells and all(re.search("tag_(hide-input|hide-cell|remove)", cell) for cell in cells), (
            path.name
        )
        assert 'class="cell_output' in text
        assert "Traceback (most recent call last)" not in text


def test_links_between_pages_lead_somewhere():
    anchors = {path: {attributes.get("id") for _, attributes in Tags(path).found} for path in PAGES}
    broken = []
    for path in CONTENT:
        for tag, attributes in Tags(path).found:
            target, _, anchor = (attributes.get("href") or "").partition("#")
            if tag != "a" or re.match(r"\w+:|//", target) or attributes.get("href") is None:
                continue
            file = (path.parent / target).resolve() if target else path
            missing = not file.exists() or (anchor and file in anchors and anchor not in anchors[file])
            if missing:
                broken.append(f"{path.name} -> {attributes['href']}")
    assert broken == []


# --- in a browser -----------------------------------------------------------------------------------

SEEN = """JSON.stringify({
  equations: document.querySelectorAll('.bd-article .math').length,
  drawn: document.querySelectorAll('.bd-article mjx-container svg').length,
  wrong: [...document.querySelectorAll('[data-mml-node="merror"]')].map(node => node.textContent),
  raw: [...document.querySelectorAll('.bd-article p:not(dl.py *)')].map(p => p.textContent).filter(
    text => /\\{(eq|glue|doc)[:}]|\\$[^$\\s][^$]*\\$/.test(text)),
  missing: [...document.querySelectorAll('.bd-article td, .bd-article .pasted-text')].map(
    node => node.textContent.trim()).filter(text => /^(nan|nat|<na>)(?![a-z])/i.test(text)),
  unloaded: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  open: document.querySelectorAll('div.cell details.hide[open]').length,
})"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@needs_browser
def test_every_page_opens_offline_without_an_error_draws_its_mathematics_and_fits_a_phone(fresh, address):
    drawn = 0
    for path in CONTENT:
        name = path.relative_to(BOOK).as_posix()
        fresh.open(address + name)
        seen = json.loads(fresh.evaluate(SEEN))
        assert seen["drawn"] >= seen["equations"], name
        assert (seen["wrong"], seen["raw"], seen["missing"], seen["unloaded"]) == ([], [], [], []), name
        assert seen["open"] == 0, name
        drawn += seen["drawn"]
        fresh.show_as(width=390, height=844)
        assert fresh.evaluate(WIDER) <= 0, f"{name} is wider than a phone"
        fresh.show_as()
    assert drawn >= 20
    assert [url for url in fresh.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert fresh.failures == []
    assert fresh.errors == []


@needs_browser
def test_the_book_reads_from_a_folder_too(fresh):
    fresh.open((BOOK / "method.html").as_uri())
    assert fresh.evaluate("document.querySelectorAll('.bd-article mjx-container svg').length") >= 10
    assert all(url.startswith(("file:", "data:", "blob:")) for url in fresh.requests)
    assert fresh.errors == []


SLIDER = """(() => {
  const figure = document.activeElement.closest('figure.tir-slider');
  const top = figure.querySelector('.tir-slider-top'), frame = top.parentElement.getBoundingClientRect();
  return JSON.stringify([
    Number(document.activeElement.value),
    getComputedStyle(top).clipPath,
    (figure.querySelector('.tir-slider-edge').getBoundingClientRect().left + 1 - frame.left) / frame.width,
    [...figure.querySelectorAll('img')].map(i => [i.alt, i.naturalWidth > 0, i.src.slice(0, 5)]),
    document.activeElement.getAttribute('aria-label'),
  ]);
})()"""


@needs_browser
@pytest.mark.parametrize("which", [0, 1])
def test_both_pictures_of_a_slider_fill_its_frame(fresh, address, which):
    fresh.open(f"{address}_executed/12_gallery.html")
    fresh.evaluate("document.documentElement.dataset.theme = 'dark'")
    beside = f"""JSON.stringify((() => {{
      const frame = document.querySelectorAll('.tir-slider-frame')[{which}];
      const place = frame.getBoundingClientRect(), sides = ['left', 'top', 'right', 'bottom'];
      return [...frame.querySelectorAll('img')].flatMap(image => {{
        const own = image.getBoundingClientRect(), padding = parseFloat(getComputedStyle(image).padding);
        return [padding, ...sides.map(side => own[side] - place[side])];
      }});
    }})())"""
    assert json.loads(fresh.evaluate(beside)) == pytest.approx([0] * 10, abs=0.5)


@needs_browser
@pytest.mark.parametrize("which", [0, 1])
def test_the_slider_moves_by_keyboard(fresh, address, which):
    name = next(path.relative_to(BOOK).as_posix() for path in CONTENT if path.name == "12_gallery.html")
    fresh.open(address + name)
    assert fresh.evaluate("document.querySelectorAll('figure.tir-slider input[type=range]').length") == 2
    fresh.evaluate(f"document.querySelectorAll('figure.tir-slider input')[{which}].focus()")

    def seen() -> tuple[float, str, float]:
        value, clip, edge, images, label = json.loads(fresh.evaluate(SLIDER))
        assert all(len(alt.split()) >= 4 and loaded and kind == "data:" for alt, loaded, kind in images)
        assert len(images) == 2 and label.startswith("Edge between ")
        return value, clip, edge

    for key, times, expected in (
        ("ArrowRight", 3, 53),
        ("ArrowLeft", 13, 40),
        ("Home", 1, 0),
        ("ArrowLeft", 1, 0),
        ("End", 1, 100),
    ):
        fresh.press(key, times)
        value, clip, edge = seen()
        assert value == expected
        assert edge == pytest.approx(expected / 100, abs=0.01)
        assert clip == f"inset(0px {100 - expected}% 0px 0px)"
    assert [url for url in fresh.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert fresh.errors == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page_in_both_schemes(fresh, address, scheme):
    fresh.show_as(scheme=scheme)
    notebooks = [path.relative_to(BOOK).as_posix() for path in CONTENT if path.parent.name == "_executed"]
    for name in ["intro.html", *notebooks[:3]]:
        fresh.open(address + name)
        assert fresh.evaluate("document.documentElement.dataset.theme") == scheme
        pairs = json.loads(fresh.evaluate(CONTRAST))
        assert len(pairs) >= 3
        for what, text, ground in pairs:
            assert contrast(text, ground) >= 4.5, (name, what, text, ground)


CONTRAST = """(() => {
  const ground = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const of = (what, node) => [what, getComputedStyle(node).color, ground(node)];
  const kinds = ['h1', 'p', 'a:not(.headerlink)', 'td', 'th', 'caption', 'summary p', 'pre span',
    'figcaption', '.verdict'];
  return JSON.stringify(kinds.flatMap(kind =>
    [...document.querySelectorAll('.bd-article ' + kind)].slice(0, 12).map(node => of(kind, node))));
})()"""


def contrast(text: str, ground: str) -> float:
    """WCAG's contrast of two CSS colours, 1..21."""

    def luminance(color: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_of_contrast():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.478, abs=1e-3)
