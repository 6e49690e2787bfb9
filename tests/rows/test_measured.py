"""A row names the commit of this project, and never the commit of a project around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import taylorir
from taylorir.rows.measured import commit_of

ROOT = Path(__file__).resolve().parents[2]
SELF = "import taylorir.rows; print(taylorir.rows.git_commit())"


def output_of(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return output_of(["git", *identity, *arguments], folder, environment)


def copy_package(folder: Path) -> None:
    (folder / "taylorir").mkdir(parents=True)
    for name in ("__init__.py", "__init__.pyi", "rows"):
        source = ROOT / "taylorir" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / "taylorir" / name)
    (folder / ".gitignore").write_text("__pycache__/\n")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with this package in it, committed."""
    copy_package(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "taylorir"\n')
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "x")
    return tmp_path


def said_in(folder: Path, **environment: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)} | environment
    return output_of([sys.executable, "-c", SELF], folder, environment)


def test_a_checkout_names_its_commit_and_whether_the_package_differs(checkout):
    commit = git(checkout, "rev-parse", "--short=10", "HEAD")
    assert said_in(checkout) == commit
    assert said_in(checkout, GIT_DIR="/nowhere") == commit, "as in a hook"
    (checkout / "rows.csv").write_text("measured")
    assert commit_of(checkout) == commit
    (checkout / "taylorir" / "more.py").touch()
    assert commit_of(checkout) == f"{commit}+"


def test_a_package_inside_another_project_names_its_version(checkout):
    version = f"v{taylorir.__version__}"
    installed = checkout / ".venv" / "lib"
    copy_package(installed)
    assert said_in(installed) == version, "in an environment below a checkout"
    (checkout / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert said_in(checkout) == version, "copied into another project"
    (checkout / "pyproject.toml").write_text("not toml")
    assert said_in(checkout) == version


def test_a_package_that_the_repository_does_not_hold_names_its_version(checkout):
    git(checkout, "rm", "-rq", "--cached", "taylorir")
    assert said_in(checkout) == f"v{taylorir.__version__}"
    shutil.rmtree(checkout / ".git")
    assert said_in(checkout) == f"v{taylorir.__version__}"
