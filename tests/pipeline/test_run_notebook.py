"""Notebooks run whole or not at all, and say how they ran."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from taylorir.pipeline.run_notebook import NotebookError, check_complete, main, run_notebook
from tests.pipeline.notebooks import write_notebook

ROOT = Path(__file__).resolve().parents[2]


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


def test_the_book_has_glued_values_without_their_lines_and_no_progress_bar(tmp_path):
    code = "from tqdm import tqdm\nfrom taylorir import report\nreport.glue_values(x=0.5)\nprint(*tqdm([1]))"
    source = write_notebook(tmp_path / "01_a.ipynb", code)
    run_notebook(source, tmp_path / "out" / "01_a.ipynb")
    glued, printed = nbformat.read(tmp_path / "out" / "01_a.ipynb", as_version=4).cells[-1].outputs
    assert glued.metadata.scrapbook.name.endswith("x") and glued.data == {
        "application/papermill.record/text/plain": "0.5"
    }
    assert printed.text == "1\n"


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


def test_a_value_that_is_none_is_one_line_and_exit_code_2(tmp_path, capsys):
    source = write_notebook(tmp_path / "01_a.ipynb")
    assert main([str(source), str(tmp_path / "out.ipynb"), "-p", "seed", "["]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- what does not end by itself ------------------------------------------------------------------------


def test_a_cell_that_hangs_has_a_limit(tmp_path):
    path = write_notebook(tmp_path / "01_a.ipynb", "import time\nwhile True:\n    time.sleep(0.1)")
    with pytest.raises(NotebookError, match=r"01_a\.ipynb: a cell took more than 0\.0166667 minutes"):
        run_notebook(path, tmp_path / "out" / "01_a.ipynb", cell_minutes=1 / 60)
    assert not list((tmp_path / "out").iterdir())


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_is_ended_leaves_no_kernel_and_no_hidden_notebook(tmp_path, number):
    hangs = "import time\nopen('started', 'w').close()\ntime.sleep(1000)"
    path = write_notebook(tmp_path / "01_a.ipynb", hangs)
    target, sockets = tmp_path / "out" / "01_a.ipynb", tmp_path / "t"
    sockets.mkdir()
    command = [sys.executable, "-m", "taylorir.pipeline.run_notebook", str(path), str(target)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(sockets)}
    runner = psutil.Popen(command, cwd=tmp_path, env=environment)
    try:
        while not (tmp_path / "started").exists():
            assert runner.poll() is None
            time.sleep(0.1)
        kernels = runner.children(recursive=True)
        runner.send_signal(number)
        assert runner.wait(60) != 0
        while any(map(is_alive, kernels)):
            time.sleep(0.1)
    finally:
        if runner.poll() is None:
            runner.kill()
    if number == signal.SIGKILL:  # nothing could be removed; the next start does
        assert len(list(target.parent.iterdir())) == 1
        write_notebook(path, "print(1)")
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        assert [file.name for file in target.parent.iterdir()] == ["01_a.ipynb"]
    else:
        assert not list(target.parent.iterdir())
    assert not [file for file in sockets.iterdir() if file.name.startswith(".taylorir")]


def test_a_long_folder_for_temporary_files_is_no_matter(tmp_path, monkeypatch):
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    run_notebook(write_notebook(tmp_path / "01_a.ipynb", "print(1)"), tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").exists() and not list(long.iterdir())
