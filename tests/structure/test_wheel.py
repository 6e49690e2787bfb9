"""What is installed from a wheel does the job of the README outside a checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from taylorir.images import read_image, write_image
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LARGEST_WHEEL = 10 * 2**20  # bytes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools leaves folders behind where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("taylorir/", "data/")) or name in BESIDE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--wheel-dir", folder / "dist", folder], check=True, timeout=120)
    return next((folder / "dist").glob("*.whl"))


def test_it_holds_the_package_and_the_data_and_is_small(wheel):
    source = wheel.parents[1]
    expected = {
        path.relative_to(source).as_posix() for path in (source / "taylorir").rglob("*") if path.is_file()
    }
    expected |= {f"taylorir/{path.relative_to(source).as_posix()}" for path in (source / "data").rglob("*.*")}
    with zipfile.ZipFile(wheel) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == expected
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_it_upscales_and_lists_the_data_in_an_empty_folder(wheel, tmp_path):
    installed, here = tmp_path / "installed", tmp_path / "here"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    here.mkdir()
    write_image(here / "in.png", noise(16, 12, 3))

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = python("-c", "from taylorir.rows import DATA_FOLDER; print(DATA_FOLDER)")
    assert Path(where.strip()) == installed / "taylorir" / "data"
    upscale = ("upscale", "in.png", "out.png", "--upscale", "2", "--quiet")
    assert "in.png -> out.png" in python("-m", "taylorir", *upscale)
    assert read_image(here / "out.png").shape == (32, 24, 3)
    assert "Set5: 5 images" in python("-m", "taylorir", "data", "list")
    assert "swinir_mini_x3_s0" in python("-m", "taylorir", "models")


def test_a_package_index_can_show_its_readme_and_who_made_it(wheel):
    """There is no repository around it there, so each picture and link has its whole address."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        told = email.message_from_bytes(file.read(name))
    text = told.get_payload()
    assert told["License-Expression"] == "Apache-2.0" and told["Author"]
    assert told["Description-Content-Type"] == "text/markdown" and text.startswith("# TaylorIR")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) >= 6 and [target for target in targets if not target.startswith("https://")] == []
    assert "/raw/HEAD/book/_static/readme.svg" in text and "/blob/HEAD/CONTRIBUTING.md" in text
