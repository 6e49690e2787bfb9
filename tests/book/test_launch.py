"""What the buttons above a chapter open can run it: Binder's environment, and a notebook alone at Colab."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BINDER = ROOT / "binder"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_binder_installs_the_pins_the_package_and_the_python_of_conda():
    lines = (BINDER / "requirements.txt").read_text().splitlines()
    included = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    assert [(BINDER / name).resolve() for name in included] == [ROOT / "requirements.txt"]
    assert "--editable ." in lines and not [line for line in lines if "==" in line]
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert (BINDER / "runtime.txt").read_text().strip().replace("-", "=") in packages


@pytest.mark.skipif(os.name == "nt", reason="a script of a Unix shell")
@pytest.mark.parametrize("before", [None, "/etc/more"])
def test_binder_starts_jupyterlab_as_make_lab_does(before):
    variables = {"PATH": os.environ["PATH"]} | ({"JUPYTER_CONFIG_PATH": before} if before else {})
    command = [BINDER / "start", "printenv", "JUPYTER_CONFIG_PATH"]
    found = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    first, *others = found.stdout.strip().split(os.pathsep)
    assert (Path(first) / "jupyter_lab_config.py").is_file() and others == ([before] if before else [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_the_project_at_colab_and_nowhere_else(path, monkeypatch):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (at,) = (number for number, cell in enumerate(cells) if cell.id == "colab")
    assert cells[at].metadata.tags == ["remove-cell"]
    assert not [cell for cell in cells[:at] if "import" in cell.source]
    run = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: run.append(command[1:]))
    exec(cells[at].source, {})
    assert run == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(cells[at].source, {})
    place = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert run == [["-m", "pip", "install", "--quiet", f"git+{place}"]]
