"""A notebook depends on what it imports and on the data that it reads; what is declared is what is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taylorir.pipeline.notebook_inputs import inputs_of
from taylorir.pipeline.parameters import PRESETS, declared_parameters
from taylorir.pipeline.reads import TABLE, TRACE_VARIABLE, declared_reads, files_of_entry, traced_reads
from tests.pipeline.notebooks import write_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
EXECUTED = [
    path
    for path in (ROOT / "_build/smoke/source/_executed", ROOT / "book/_executed")
    if len(list(path.glob("*.ipynb"))) == len(NOTEBOOKS)
]


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_notebook_depends_on_what_it_imports_its_runner_and_the_environment(tmp_path):
    modules = {
        "__init__": "",
        "top": "from taylorir import middle",
        "middle": "def f():\n    import taylorir.low",
        "low": "",
        "other": "",
        "pipeline/__init__": "",
        "pipeline/run_notebook": "from taylorir.pipeline import part",
        "pipeline/part": "",
    }
    write_files(tmp_path, {f"taylorir/{name}.py": text for name, text in modules.items()})
    parts = ["taylorir/pipeline/kernels/a.cpp", "taylorir/pipeline/table.csv"]
    write_files(tmp_path, dict.fromkeys([*parts, "taylorir/room/b.cpp", "taylorir/pipeline/notes.txt"], ""))
    name = Path("notebooks/01_a.ipynb")
    write_notebook(tmp_path / name, "%matplotlib inline\nfrom taylorir.top import f")
    reached = [f"taylorir/{module}.py" for module in modules if module != "other"] + parts
    assert inputs_of(name, {"preset": "cpu"}, tmp_path) == sorted(["requirements.txt", str(name), *reached])


def test_a_notebook_depends_on_the_data_that_its_parameters_name(tmp_path):
    write_files(tmp_path, {f"data/{name}": "" for name in ("a.csv", "b.csv", "w/x.bin", "w/y.bin")})
    name = Path("notebooks/01_a.ipynb")
    write_notebook(tmp_path / name, "")
    by_preset = {"data/w/y.bin": ["paper"]}
    patterns = ["data/{tables[0]}", "data/{tables[1]}", "data/w/{weights}.bin", by_preset]
    (tmp_path / "notebooks" / TABLE).write_text(yaml.safe_dump({"01_a": patterns}))
    given = {"preset": "cpu", "tables": ["b.csv", "a.csv"], "weights": "x"}
    assert declared_reads(name, given, tmp_path) == ["data/a.csv", "data/b.csv", "data/w/x.bin"]
    paper = given | {"preset": "paper"}
    assert set(declared_reads(name, paper, tmp_path)) - set(declared_reads(name, given, tmp_path)) == {
        "data/w/y.bin"
    }
    family = files_of_entry("data/w/?.bin", given, tmp_path)
    assert family == ["data/w/x.bin", "data/w/y.bin"]
    elsewhere = given | {"weights": "/elsewhere/z"}
    assert declared_reads(name, elsewhere, tmp_path) == ["data/a.csv", "data/b.csv"]
    assert set(declared_reads(name, given, tmp_path)) < set(inputs_of(name, given, tmp_path))
    with pytest.raises(ValueError, match=r"reads\.yaml does not say what 02_b\.ipynb reads"):
        declared_reads(name.with_name("02_b.ipynb"), given, tmp_path)


READER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from taylorir.pipeline.parameters import PRESETS, declared_parameters
from taylorir.pipeline.reads import load_ipython_extension
load_ipython_extension(None)
from safetensors.numpy import load_file, save_file
import numpy
open("data/a.csv").read()
Path("data/w").mkdir()
os.close(os.open("data/b.csv", os.O_RDONLY))
save_file({{"x": numpy.zeros(1)}}, "data/w/x.safetensors")
load_file(Path("data/w/x.safetensors").resolve())
open("data/written.csv", "w").close()
open("elsewhere.csv").close()
open("taylorir/module.py").close()
try:
    open("data/missing.csv")
except FileNotFoundError:
    pass
import subprocess
os.chdir("data")
open("c.csv").close()
open("a.csv").close()
"""


def test_what_a_process_reads_of_the_checkout_is_written_down(tmp_path):
    names = ("data/a.csv", "data/b.csv", "data/c.csv", "elsewhere.csv", "taylorir/module.py", "trace")
    write_files(tmp_path, dict.fromkeys(names, ""))
    environment = os.environ | {TRACE_VARIABLE: str(tmp_path / "trace")}
    code = READER.format(root=str(ROOT))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    expected = ["data/a.csv", "data/b.csv", "data/c.csv", "data/w/x.safetensors"]
    assert traced_reads(tmp_path / "trace") == expected


@pytest.mark.book
@pytest.mark.skipif(not EXECUTED, reason="no executed notebooks; run make smoke")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_what_is_declared_and_nothing_else(path):
    for folder in EXECUTED:
        recorded = json.loads((folder / path.name).read_text(encoding="utf-8"))["metadata"]["taylorir"]
        assert reads_of(path, recorded["parameters"]) == recorded["reads"]


def test_the_table_holds_each_notebook_and_its_files_exist():
    table = yaml.safe_load((ROOT / "notebooks" / TABLE).read_text(encoding="utf-8"))
    assert list(table) == [path.stem for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        defaults = declared_parameters(json.loads(path.read_text(encoding="utf-8")))
        everywhere = [defaults | {"preset": preset} for preset in PRESETS]
        found = [
            {file for given in everywhere for file in files_of_entry(entry, given, ROOT)}
            for entry in table[path.stem]
        ]
        assert all(found), f"{path.stem}: an entry of which there is no file"
        assert sum(map(len, found)) == len(set.union(*found)), f"{path.stem}: a file twice"


def reads_of(path: Path, parameters: dict[str, object]) -> list[str]:
    return declared_reads(path.relative_to(ROOT), parameters, ROOT)


def test_of_a_room_imported_whole_counts_what_is_taken_from_it(tmp_path):
    files = {
        "__init__.pyi": "from . import room as room\nfrom .room import f as f",
        "room/__init__.pyi": "from . import cost as cost\nfrom .tables import table\nfrom .other import f",
        "room/cost.py": "",
        "room/tables.py": "",
        "room/other.py": "",
    }
    write_files(tmp_path, {f"taylorir/{name}": text for name, text in files.items()})
    name = Path("notebooks/01_a.ipynb")
    write_notebook(tmp_path / name, "from taylorir import room\nroom.cost.plot(room.table())")
    assert set(inputs_of(name, {"preset": "cpu"}, tmp_path)) >= {
        "taylorir/room/cost.py",
        "taylorir/room/tables.py",
    }
    assert "taylorir/room/other.py" not in inputs_of(name, {"preset": "cpu"}, tmp_path)
    write_notebook(tmp_path / name, "from taylorir import f")
    assert "taylorir/room/other.py" in inputs_of(name, {"preset": "cpu"}, tmp_path)
