"""Notebooks run whole or not at all, with parameters that they have, and only those that a change touches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from taylorir.pipeline.notebook_inputs import inputs_of
from taylorir.pipeline.run_notebook import (
    NotebookError,
    check_complete,
    check_parameters,
    declared_parameters,
    main,
    run_notebook,
)

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "preset": "cpu",
    "seed": 0,
    "rate": 1.0,
    "windows": [8, 16],
    "name": "x",
    "check": False,
    "free": None,
}


def write_notebook(path: Path, *sources: str) -> Path:
    cells = [
        new_markdown_cell("# A question"),
        new_code_cell('preset = "cpu"\nseed = 0', metadata={"tags": ["parameters"]}),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, sources)], metadata={"kernelspec": kernel})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": 3},
        {"rate": 2},
        {"rate": 2.5},
        {"windows": [48]},
        {"check": True},
        {"free": [1]},
        {"preset": "smoke"},
    ],
)
def test_parameters_of_the_right_type_pass(given):
    check_parameters(given, DEFAULTS)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sead": 3}, ValueError, "unknown parameter 'sead'; it has preset, seed"),
        ({"seed": 3.0}, TypeError, r"seed is 3.0 \(float\), expected int"),
        ({"seed": True}, TypeError, r"seed is True \(bool\)"),
        ({"rate": "1e-5"}, TypeError, "rate is '1e-5'"),
        ({"windows": 48}, TypeError, "windows is 48"),
        ({"windows": ["48"]}, TypeError, "windows"),
        ({"check": 1}, TypeError, "check is 1"),
        ({"preset": "smoky"}, ValueError, "preset is 'smoky', expected one of smoke, cpu, paper"),
    ],
)
def test_parameters_that_are_unknown_or_mistyped_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        check_parameters(given, DEFAULTS)


def test_declared_parameters_are_read_across_lines_and_must_be_literal():
    cell = new_code_cell("windows = [\n    8,\n    48,\n]\nrate = 1e-5", metadata={"tags": ["parameters"]})
    assert declared_parameters(new_notebook(cells=[cell])) == {"windows": [8, 48], "rate": 1e-5}
    cell.source = "rate = 1 / 3"
    with pytest.raises(ValueError, match="not a JSON value"):
        declared_parameters(new_notebook(cells=[cell]))
    with pytest.raises(ValueError, match="0 cells"):
        declared_parameters(new_notebook())


@pytest.mark.parametrize(("name", "value"), [("sead", "1"), ("seed", "1.5"), ("preset", "smoky")])
def test_a_wrong_parameter_is_one_line_and_exit_code_2(tmp_path, capsys, name, value):
    source = write_notebook(tmp_path / "01_a.ipynb")
    assert main([str(source), str(tmp_path / "out.ipynb"), "-p", name, value]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name in error and "Traceback" not in error
    assert not (tmp_path / "out.ipynb").exists()


def test_a_missing_notebook_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "99_none.ipynb"), str(tmp_path / "out.ipynb")]) == 2
    assert "no such notebook" in capsys.readouterr().err


# --- publishing -----------------------------------------------------------------------------------


def test_a_whole_notebook_is_published_with_how_it_was_run(tmp_path):
    source = write_notebook(tmp_path / "01_a.ipynb", "print(seed + 1, preset)")
    run_notebook(source, tmp_path / "out" / "01_a.ipynb", {"seed": 41, "preset": "smoke"})
    executed = nbformat.read(tmp_path / "out" / "01_a.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "42 smoke\n"
    assert executed.metadata.taylorir.parameters == {"preset": "smoke", "seed": 41}
    assert str(tmp_path) not in (tmp_path / "out" / "01_a.ipynb").read_text()
    assert all("hide-input" in cell.metadata.tags for cell in executed.cells if cell.cell_type == "code")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01_a.ipynb"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('no')", r"In \[2\] failed"),
        ("import sys; sys.exit(0)", "cell 3 did not run to its end"),
        ("import os; os._exit(0)", "stopped before the last cell"),
    ],
    ids=["fails", "exits", "dies"],
)
def test_a_notebook_that_fails_or_stops_half_way_leaves_what_was_published(tmp_path, source, message):
    path = write_notebook(tmp_path / "01_a.ipynb", source, "print('after')")
    published = tmp_path / "out" / "01_a.ipynb"
    published.parent.mkdir()
    published.write_text("the last whole one")
    with pytest.raises(NotebookError, match=message):
        run_notebook(path, published)
    assert published.read_text() == "the last whole one"
    assert [path.name for path in published.parent.iterdir()] == ["01_a.ipynb"]


def test_a_cell_that_never_ran_or_holds_an_error_is_seen():
    ran = {"papermill": {"status": "completed"}}
    notebook = new_notebook(
        cells=[new_code_cell("1", execution_count=1, metadata=ran), new_code_cell("2", metadata=ran)]
    )
    with pytest.raises(NotebookError, match="cell 2 did not run"):
        check_complete(notebook)
    notebook.cells[1].execution_count = 2
    check_complete(notebook)
    notebook.cells[1].outputs = [nbformat.v4.new_output("error", ename="E", evalue="why", traceback=[])]
    with pytest.raises(NotebookError, match="cell 2 raised E: why"):
        check_complete(notebook)


@pytest.mark.parametrize(("alt", "shown"), [("", 1), ("a curve", 0), ("a curve", 2)])
def test_a_picture_without_a_text_a_lost_one_and_a_doubled_one_are_seen(alt, shown):
    output = nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})
    metadata = {"papermill": {"status": "completed"}, "mystnb": {"image": {"alt": alt}}}
    cell = new_code_cell("figure", execution_count=1, metadata=metadata, outputs=[output] * shown)
    with pytest.raises(NotebookError, match=f"cell 1 has .* alternative text and shows {shown} pictures"):
        check_complete(new_notebook(cells=[cell]))


# --- what a change touches --------------------------------------------------------------------------


def test_a_notebook_depends_on_what_it_imports_and_on_the_data_that_it_names(tmp_path):
    package = tmp_path / "taylorir"
    package.mkdir()
    files = {
        "__init__": "",
        "top": "from taylorir import middle",
        "middle": "def f():\n    import taylorir.low",
        "low": "FILES = sorted(folder.glob('*'))",  # names no file, though it would match each
    }
    for name, text in {**files, "other": "", "rows": "F = 'data/results/memory.csv'"}.items():
        (package / f"{name}.py").write_text(text)
    for name in (
        "results/memory.csv",
        "results/bicubic.csv",
        "weights/a_seed1.safetensors",
        "weights/b.safetensors",
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    name = Path("notebooks/01_a.ipynb")
    write_notebook(tmp_path / name, "%matplotlib inline\nfrom taylorir.top import f\nx = f'{f}_seed{seed}'")
    modules = [f"taylorir/{module}.py" for module in ("__init__", "low", "middle", "top")]
    assert inputs_of(name, tmp_path) == ["data/weights/a_seed1.safetensors", str(name), *modules]
    write_notebook(tmp_path / name, "from taylorir import rows\ny = 'bicubic.csv'")
    data = [f"data/results/{table}.csv" for table in ("bicubic", "memory")]
    assert inputs_of(name, tmp_path) == [*data, str(name), "taylorir/__init__.py", "taylorir/rows.py"]


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-j2", *arguments]
    return subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )


def test_the_pipeline_resumes_after_a_failure_and_runs_only_what_changed(tmp_path):
    (tmp_path / "book").mkdir()
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "print('a')")
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", "raise ValueError")
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


def test_the_pipeline_refuses_what_it_does_not_know(tmp_path):
    (tmp_path / "book").mkdir()
    wrong = ("preset=smoky", "sead=1", "parameters={07_none: {seed: 1}}")
    result = snakemake(tmp_path, "-n", "--config", *wrong)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "unknown config key sead, notebook 07_none, preset smoky" in result.stdout
