"""The picture of the README is the one that its rows give."""

from __future__ import annotations

from pathlib import Path

from taylorir.report.overview import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_picture_of_the_readme_follows_its_rows(tmp_path):
    tables = (str(ROOT / "data/results" / name) for name in ("memory_m.csv", "memory_bias.csv"))
    main(str(tmp_path / "readme.svg"), *tables)
    made = (tmp_path / "readme.svg").read_text(encoding="utf-8")
    assert made == (ROOT / "book" / "_static" / "readme.svg").read_text(encoding="utf-8"), "run: make picture"
