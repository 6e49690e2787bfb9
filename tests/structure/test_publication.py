"""What a stranger meets first: the README's commands run as they stand, all files tell the same version."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import taylorir
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CODEMETA, ZENODO, LAB = (
    json.loads((ROOT / name).read_text())
    for name in ("codemeta.json", ".zenodo.json", "lab/taylorir-prose/package.json")
)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(text: str) -> list[list[str]]:
    """The lines of its shell blocks, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def test_all_files_tell_the_same_version_licence_and_place():
    for told in (CITATION, CODEMETA, ZENODO, LAB):
        assert told["version"] == taylorir.__version__
    assert {PROJECT["license"], CITATION["license"], ZENODO["license"], LAB["license"]} == {"Apache-2.0"}
    place = PROJECT["urls"]["Repository"]
    assert (CITATION["repository-code"], CODEMETA["codeRepository"]) == (place, place)
    assert ["git", "clone", place] in commands(README)
    assert CITATION["title"] == ZENODO["title"] and PROJECT["description"] == CODEMETA["description"]
    authors = [author["name"] for author in PROJECT["authors"]]
    for told in (CITATION["authors"], CODEMETA["author"], ZENODO["creators"]):
        assert [author["name"] for author in told] == authors


def test_the_readmes_targets_of_make_exist():
    targets = {words[1] for words in commands(README) if words[:1] == ["make"]}
    targets |= set(re.findall(r"`make ([\w-]+)`", README))
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert len(targets) >= 5 and targets - rules == set()


def test_the_readmes_library_and_command_run_as_they_stand(tmp_path):
    from taylorir.images import write_image

    write_image(tmp_path / "photo.jpg", noise(20, 24, 3))
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "HOME": str(tmp_path)}

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    run(
        "-c", f"{code}assert y.shape == q.shape and model.config.window_size == 48 and large.size == (48, 40)"
    )
    typed = [words[1:] for words in commands(README) if words[:1] == ["taylorir"]]
    assert len(typed) >= 2
    for arguments in typed:
        run("-m", "taylorir", *arguments)
    assert (tmp_path / "large.png").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_takes_pinned_actions_and_no_text_of_others_as_code(path):
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert (
        actions and [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
    )
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []
