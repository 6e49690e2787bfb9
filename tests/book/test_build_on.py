"""The page for those who build on this: its blocks run as they stand, and its ways out lead somewhere."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from taylorir.images import write_image
from taylorir.pipeline.book import PDF_VARIABLE
from tests.book.sphinx_book import build_pages, prose
from tests.book.test_book import BOOK
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book/build_on.md"
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture
def doors(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    import doors

    return doors


def test_the_recipes_run_one_after_the_other(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4 and max(len(re.findall(r"\S.*\n", block)) for block in blocks) <= 14
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate("abc"):
        write_image(tmp_path / "photos" / f"{name}.png", noise(96, 96, 3, seed=seed))
    names, said = {"__name__": "recipes"}, io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), names)
    assert names["y"].shape == (1, 2304, 60)
    assert said.getvalue().count("psnr_y") == 2 and (tmp_path / "my_rows.csv").is_file()
    assert names["means"].model.tolist() == ["bicubic", "nearest"]
    assert names["means"].psnr_y.is_monotonic_decreasing  # bicubic before nearest
    assert names["result"].step == 4 and names["result"].weights.parent.name == "my_run"
    commands = re.findall(r"`(taylorir train [^`]+)`", PAGE.read_text(encoding="utf-8"))
    folders = [command.split("--out ")[1].split()[0] for command in commands]  # another run is refused
    assert folders and not any((tmp_path / folder).exists() for folder in folders)
    assert isinstance(names["large"], Image.Image) and names["large"].size == (192, 192)


@pytest.mark.parametrize(
    ("citation", "environ", "address"),
    [
        ({}, {}, None),
        ({"repository-code": "https://github.com/a/b/"}, {}, "https://github.com/a/b"),
        (
            {},
            {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "c/d"},
            "https://github.com/c/d",
        ),
        (
            {"repository-code": "https://github.com/a/b"},
            {"TAYLORIR_REPOSITORY": "https://git.example/e/f.git"},
            "https://git.example/e/f",
        ),
    ],
)
def test_the_address_of_the_repository(doors, citation, environ, address):
    assert doors.repository(citation, environ) == address


def test_chapters_open_at_both_services_and_only_from_github(doors):
    assert doors.launch_links("https://github.com/a/b", "notebooks/01_taylorshift.ipynb") == {
        "Binder": "https://mybinder.org/v2/gh/a/b/main?labpath=notebooks/01_taylorshift.ipynb",
        "Colab": "https://colab.research.google.com/github/a/b/blob/main/notebooks/01_taylorshift.ipynb",
    }
    assert doors.launch_links("https://git.example/e/f", "notebooks/01_taylorshift.ipynb") == {}


@pytest.mark.parametrize("made", [True, False])
def test_the_pdf_is_linked_and_copied_where_it_was_made(made, tmp_path, monkeypatch):
    printed = tmp_path / "printed.pdf"
    printed.write_bytes(b"%PDF-")
    monkeypatch.setenv(PDF_VARIABLE, str(printed) if made else "")
    (tmp_path / "book").mkdir()
    pages = {"page": [prose("# Ways out\n\n```{doors}\n```")], "bibliography": [prose("# Page of books")]}
    said = build_pages(tmp_path / "book", pages, "doors")
    assert "not found" not in said
    built = tmp_path / "book/_build"
    assert ('href="taylorir.pdf"' in (built / "page.html").read_text()) is made
    assert (built / "taylorir.pdf").is_file() is made


def test_the_entry_to_cite(doors):
    entry = doors.citation_entry(CITATION, "https://github.com/a/b")
    assert entry[0] == "@software{taylorir," and entry[-1] == "}"
    assert f"  title = {{{CITATION['title']}}}," in entry and "  url = {https://github.com/a/b}," in entry
    assert not any("url" in line for line in doors.citation_entry(CITATION, None))


DOORS = re.compile(r'href="https://(?:mybinder\.org|colab\.research\.google\.com)/([^"]+)"')
DOWNLOAD = re.compile(r'href="([^"]*_sources/[^"]+)"')


@pytest.mark.book
@pytest.mark.skipif(BOOK is None, reason="no built book; run make smoke")
def test_the_doors_of_each_chapter_lead_to_files_that_are_there(doors):
    address = doors.repository(CITATION, os.environ)
    for path in sorted((BOOK / "_executed").glob("*.html")):
        text, notebook = path.read_text(encoding="utf-8"), f"notebooks/{path.stem}.ipynb"
        assert (ROOT / notebook).is_file()
        wanted = [
            re.sub(r"https://[^/]+/", "", url) for url in doors.launch_links(address, notebook).values()
        ]
        assert sorted(set(DOORS.findall(text))) == sorted(wanted)
        (download,) = set(DOWNLOAD.findall(text))
        assert (path.parent / download).resolve().suffix == ".ipynb"
        assert (path.parent / download).resolve().is_file()
    page = (BOOK / "build_on.html").read_text(encoding="utf-8")
    assert CITATION["license"] in page and "@software" in page and address in page
