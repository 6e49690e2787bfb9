"""What is installed from a wheel does the job of the README outside a checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from taylorir.images import read_image, write_image
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LARGEST_WHEEL = 32 * 2**20  # bytes; most of it are the weights that chapters read


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


@pytest.fixture
def here(tmp_path) -> Path:
    """An empty folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def installed(wheel, tmp_path) -> Path:
    """What is in the wheel, unpacked."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")
    return tmp_path / "installed"


@pytest.fixture
def python(installed, here) -> Callable[..., str]:
    """Runs Python in the empty folder with what is installed, and gives what it prints."""

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        environment.pop("TAYLORIR_DATA", None)
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_notebook_runs_in_an_empty_folder(python, here):
    shutil.copyfile(ROOT / "notebooks" / "15_by_hand.ipynb", here / "notebook.ipynb")
    options = ("--no-progress-bar", "-k", "python3", "-p", "preset", "smoke")
    python("-m", "papermill", *options, "notebook.ipynb", "executed.ipynb")
    assert '"exception": null' in (here / "executed.ipynb").read_text(encoding="utf-8")


def test_it_upscales_and_lists_the_data_in_an_empty_folder(python, here, installed):
    write_image(here / "in.png", noise(16, 12, 3))
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
