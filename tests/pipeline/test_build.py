"""The build runs what a change touches, alone in its folder, and goes on after a failure and after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from taylorir.pipeline.build import only_build
from tests.pipeline.notebooks import write_notebook, write_project

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60  # until something that must happen is taken not to


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-j2", *arguments)


def test_the_pipeline_resumes_after_a_failure_and_runs_only_what_changed(tmp_path):
    write_project(tmp_path, **{"01_a": "print('a')", "02_b": "raise ValueError"})
    targets = [f"book/_executed/{name}.ipynb" for name in ("01_a", "02_b")]
    first = snakemake(tmp_path, "--keep-going", *targets)
    assert first.returncode == 1 and "02_b.ipynb: In [3] failed" in first.stdout
    assert [(tmp_path / target).exists() for target in targets] == [True, False]

    before = (tmp_path / targets[0]).stat().st_mtime_ns
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", "print('b')")
    second = snakemake(tmp_path, *targets)
    assert second.returncode == 0, second.stdout
    assert (tmp_path / targets[1]).exists() and (tmp_path / targets[0]).stat().st_mtime_ns == before
    assert "Nothing to be done" in snakemake(tmp_path, "-n", *targets).stdout


# --- what stops before anything runs ------------------------------------------------------------------


MISTYPED = {
    "parameters={07_none: {seed: 1}}": "unknown notebook 07_none; presets",
    "parameters={01_a: {sead: 1}}": "01_a.ipynb: unknown parameter 'sead'; it has preset, seed",
    "parameters={01_a: {seed: 1e-05}}": "01_a.ipynb: parameter seed is 1e-05 (float), expected int",
    "parameters={01_a: {seed: [}}": "parameters are '{01_a: {seed: [}}'",
    "preset=smoky": "unknown preset smoky",
    "sead=1": "unknown config key sead",
}


@pytest.mark.parametrize("config", MISTYPED)
def test_a_mistyped_notebook_parameter_or_preset_stops_snakemake_before_anything_runs(tmp_path, config):
    write_project(tmp_path, **{"01_a": "print(1)"})
    result = snakemake(tmp_path, "--config", config)
    assert result.returncode == 1
    assert result.stdout.startswith("taylorir: error: ") and result.stdout.count("\n") == 1
    assert MISTYPED[config] in result.stdout
    assert not (tmp_path / "book" / "_executed").exists()


def test_a_mistyped_parameter_stops_make_before_anything_runs(tmp_path):
    write_make_project(tmp_path, **{"01_a": "print(1)"})
    for target in ("book", "smoke"):
        result = run(tmp_path, "make", target, "PARAMETERS={01_a: {'sead': 1}}")
        assert result.returncode == 2 and "Traceback" not in result.stdout
        assert "taylorir: error: 01_a.ipynb: unknown parameter 'sead'" in result.stdout
    assert not list(tmp_path.rglob("_executed"))


def test_the_full_thing_asks_a_cluster_for_a_gpu(tmp_path):
    write_project(tmp_path, **{"01_a": "print(1)"})
    plan = {
        preset: snakemake(tmp_path, "-n", f"{source}/_executed/01_a.ipynb", "--config", f"preset={preset}")
        for preset, source in (("cpu", "book"), ("paper", "_build/paper/source"))
    }
    assert "gpu=1" in plan["paper"].stdout and "runtime=1440" in plan["paper"].stdout
    assert "gpu" not in plan["cpu"].stdout and "runtime=30" in plan["cpu"].stdout


# --- one build in a folder, and none that goes on ---------------------------------------------------------


def write_make_project(folder: Path, **notebooks: str) -> None:
    """A project with an environment that hands on to this one."""
    write_project(folder, **notebooks)
    for name in ("Makefile", "Snakefile"):
        shutil.copy(ROOT / name, folder)
    (folder / "pyproject.toml").touch()
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / ".installed").touch()


def wait_until(happened) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def started_build(folder: Path) -> Iterator[psutil.Process]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("MAKELEVEL", None)
    build = psutil.Popen(["make", "book"], cwd=folder, env=environment, start_new_session=True)
    try:
        wait_until(lambda: build.poll() is not None or (folder / "kernel").exists())
        yield build
    finally:
        for process in [*build.children(recursive=True), build] if build.is_running() else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        build.wait()


HANGS_ONCE = """
import os, pathlib, time
first = not pathlib.Path("kernel").exists()
pathlib.Path("kernel").write_text("")
time.sleep(1000 if first else 0)
"""


def test_a_second_build_in_the_same_folder_is_refused_in_one_line(tmp_path):
    write_project(tmp_path, **{"01_a": "print(1)"})
    target = "book/_executed/01_a.ipynb"
    lock = only_build(tmp_path / ".snakemake")
    refused = snakemake(tmp_path, target)
    assert refused.returncode == 1 and refused.stdout.count("\n") == 1
    assert "another build is at work in this folder" in refused.stdout
    lock.release()
    assert snakemake(tmp_path, target).returncode == 0


def command_line(process):
    """Its words; none of a process that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("victim", ["make", "snakemake"])
def test_a_killed_build_leaves_nothing_running_and_the_same_command_goes_on(tmp_path, victim):
    write_make_project(tmp_path, **{"01_a": "print(1)", "02_b": HANGS_ONCE})
    with started_build(tmp_path) as build:
        processes = build.children(recursive=True)
        words = {process: command_line(process) for process in processes}
        assert any("ipykernel_launcher" in line for line in words.values())
        commands = {"make": build} | {line[2]: process for process, line in words.items() if len(line) > 2}
        commands[victim].kill()
        wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes))
    again = run(tmp_path, "make", "book")
    assert again.returncode == 0, again.stdout
    assert (tmp_path / "_build" / "html" / "index.html").is_file()
    executed = tmp_path / "book" / "_executed"
    assert sorted(path.name for path in executed.iterdir()) == ["01_a.ipynb", "02_b.ipynb"]


# --- the environment ---------------------------------------------------------------------------------------

PYTHON = """#!/bin/sh
case "$*" in
  "-m venv --clear .venv")
    rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >> log ;;
  *pip\\ install*) echo pip >> log ;;
  -c*print*) echo {version} ;;
esac
"""


def write_python(path: Path, version: str = "3.12") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(version=version))
    path.chmod(0o755)
    return path


def test_an_environment_is_made_once_and_anew_when_it_is_of_no_use(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    folder = tmp_path / "bin"
    write_python(folder / "python3")
    newer = write_python(folder / "python3.13", "3.13")
    installed, python = tmp_path / ".venv" / ".installed", tmp_path / ".venv" / "bin" / "python"

    def steps(*arguments: str) -> str:
        (tmp_path / "log").write_text("")
        result = run(tmp_path, "make", f"PATH={folder}:{os.environ['PATH']}", ".venv/.installed", *arguments)
        assert result.returncode == 0, result.stdout
        return (tmp_path / "log").read_text().replace("\n", " ")

    assert steps() == "venv pip pip "
    assert steps() == ""
    os.utime(tmp_path / "requirements.txt", (2**32, 2**32))
    assert steps() == "pip pip ", "a pin has changed"
    os.utime(tmp_path / "requirements.txt", (0, 0))
    installed.unlink()
    assert steps() == "venv pip pip ", "it was cut short"
    python.unlink()
    assert steps() == "venv pip pip ", "its Python is gone"
    write_python(python, "")
    assert steps() == "venv pip pip ", "its Python is too old, or has no pip"
    assert steps(f"PYTHON={newer}") == "venv pip pip ", "another Python is asked for"
    assert steps(f"PYTHON={newer}") == ""
    assert steps() == "", "the newer one serves"


def test_clean_keeps_what_is_finished(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    finished = ("_build/html/index.html", "_build/smoke/html/index.html", "book/_executed/01_a.ipynb")
    left = ("_build/.part/x", "_build/smoke/.part/x", "book/_executed/.taylorir-h-1-00000000-0.part/x")
    for name in (*finished, *left, ".snakemake/metadata/x", "book/intro.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def files() -> set[str]:
        paths = tmp_path.rglob("*")
        return {path.relative_to(tmp_path).as_posix() for path in paths if path.is_file()} - {"Makefile"}

    assert run(tmp_path, "make", "clean").returncode == 0
    assert files() == {*finished, ".snakemake/metadata/x", "book/intro.md"}
    assert run(tmp_path, "make", "clean-book").returncode == 0
    assert files() == {"book/intro.md"}
