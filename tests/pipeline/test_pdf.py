"""The PDF of a book: made from its pages, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taylorir.pipeline import pdf

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of two pages, in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    pages = tmp_path / "book"
    pages.mkdir()
    (tmp_path / "_config.yml").write_text("title: Small\nonly_build_toc_files: true\n")
    (pages / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: other\n")
    for name in ("intro", "other"):
        (pages / f"{name}.md").write_text(f"# The page {name}\n\nSome words.\n")
    (pages / "_static").mkdir()
    shutil.copy(ROOT / "book/_static/book.css", pages / "_static")
    return pages


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="no Chromium on this machine")
def test_all_pages_become_one_pdf(book, tmp_path):
    command = [sys.executable, "-m", "taylorir.pipeline.pdf", "book", "small.pdf"]
    run = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert run.returncode == 0, run.stderr
    content = (tmp_path / "small.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 2  # a chapter begins on a page of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_config.yml", "book", "small.pdf"]


def test_without_a_browser_it_says_so_and_leaves_nothing(book, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="no browser to print with; looked for chromium"):
        pdf.build_pdf(book, tmp_path / "small.pdf")
    assert not (tmp_path / "small.pdf").exists()
