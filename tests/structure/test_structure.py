"""What keeps the repository readable: imports point downward, small files, clean notebooks, equal pins."""

from __future__ import annotations

import ast
import graphlib
import importlib
import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from taylorir.pipeline.notebook_inputs import imported_modules, public_names
from taylorir.pipeline.parameters import PRESETS, check_parameters, declared_parameters
from tests.structure.rooms import FLOORS, MODULES, PAGE, ROOMS, ROOT, drawn, imports_of, room_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOOK = ROOT / "book"

# What is measured from within shows its parts: benchmarks and accounting see the kernels.
INNER_ROOMS = {"taylorir.attention": "cost"}

# Tests of how the book is made, not of what the paper says.
NO_CLAIM = (
    "tests/book/",
    "tests/cli/test_benchmark",
    "tests/evaluation/test_hub",
    "tests/exercises/",
    "tests/mutation/",
    "tests/networks/test_export",
    "tests/networks/test_tracing",
    "tests/pipeline/",
    "tests/report/",
    "tests/rows/",
    "tests/structure/",
)


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.splitlines() if (path := ROOT / name).is_file()]


# --- modules --------------------------------------------------------------------------------------


def test_the_package_is_rooms_and_nothing_beside_them():
    assert len(ROOMS) <= 16 and len(FLOORS) <= 7
    assert {path.name for path in (ROOT / "taylorir").glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {path.parent.name for path in (ROOT / "taylorir").glob("*/__init__.py")} == set(ROOMS)


def test_imports_have_no_cycle():
    graph = {module: imports_of(module) for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_map_of_the_rooms_is_drawn_from_the_imports():
    page = PAGE.read_text(encoding="utf-8")
    assert page == drawn(page), "python -m tests.structure.rooms draws it anew"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_of_one_system_alone(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    of_unix = ("resource", "fcntl", "pwd", "grp", "termios")
    assert not [name for package in of_unix for name in imported_modules(tree, package)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below(room):
    inside = [module for module in MODULES if room_of(module) == room]
    below = {name for name, floor in ROOMS.items() if floor > ROOMS[room]} | {room}
    assert {room_of(name) for module in inside for name in imports_of(module)} <= below


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_of_others_what_they_export(room):
    inside = [module for module in MODULES if room_of(module) == room]
    for module in inside:
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module or "." not in node.module:
                continue
            if not node.module.startswith("taylorir.") or room_of(node.module) == room:
                continue
            if any(node.module.startswith(inner) and user == room for inner, user in INNER_ROOMS.items()):
                continue
            exported = public_names(ROOT / "taylorir" / room_of(node.module) / "__init__.pyi")
            assert node.module.count(".") == 1, f"{module} imports {node.module}, which is private"
            assert {alias.name for alias in node.names} <= set(exported), f"{module}: {node.module}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_its_question_and_exports_names_that_exist(room):
    module = importlib.import_module(f"taylorir.{room}")
    assert len((module.__doc__ or "").split()) >= 15
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    homes = public_names(ROOT / "taylorir" / room / "__init__.pyi")
    assert set(homes) == set(module.__all__)
    # a function named like a module would turn into that module once it is imported by its full name
    modules = {path.stem for path in (ROOT / "taylorir" / room).glob("*.py")}
    tree = ast.parse((ROOT / "taylorir" / room / "__init__.pyi").read_text(encoding="utf-8"))
    whole = {
        alias.name for node in ast.walk(tree) if getattr(node, "module", "") is None for alias in node.names
    }
    assert set(homes) & modules == whole


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) == "report"])
def test_reports_see_frames_and_arrays_never_torch(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not list(imported_modules(tree, "torch"))


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *sorted((BOOK / "_ext").glob("*.py"))], ids=lambda path: path.name
)
def test_files_stay_small_and_have_a_name_that_says_something(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in ("utils", "helpers", "misc", "common")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.name == "__init__.py"


# --- notebooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_valid(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_begin_with_their_question_and_their_parameters(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    first_code = next(cell for cell in cells if cell.cell_type == "code")
    assert "parameters" in first_code.metadata.get("tags", [])
    defaults = declared_parameters(nbformat.read(path, as_version=4))
    assert defaults["preset"] == "cpu"
    for preset in PRESETS:
        check_parameters({"preset": preset}, defaults)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_calls_and_prose_only(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        assert not re.search(r"tqdm\.(auto|notebook)|ipywidgets|\.backward\(\)", cell.source)
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.While), (
                cell.source
            )


# --- the repository ---------------------------------------------------------------------------------


def test_no_file_names_a_machine():
    machine = re.compile(
        "|".join(("/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/\w", "/Us" + r"ers/\w", r"[A-Z]:\\" + "Users"))
    )
    offenders = []
    for path in tracked_files():
        if path.suffix in (".safetensors", ".png", ".jpg", ".webp") or path.name == "LICENSE":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        offenders += [f"{path.relative_to(ROOT)}: {match.group()}" for match in machine.finditer(text)]
    assert offenders == []


def test_committed_files_are_small_and_no_benchmark_image_is_among_them():
    for path in tracked_files():
        limits = {"weights": 2, "golden": 4, "results": 4}  # MiB
        limit = next((limits[part] for part in path.parts if part in limits), 1)
        assert path.stat().st_size <= limit * 2**20, path
        assert path.suffix.lower() not in (".bmp", ".tif", ".tiff", ".npy", ".pth"), path


def pins_of(lines: list[str]) -> dict[str, str]:
    bare = [line.partition("#")[0].partition(";")[0].strip() for line in lines]
    return dict(line.split("==") for line in bare if line and not line.startswith("-"))


def test_conda_and_pip_install_the_same_versions():
    pip = pins_of((ROOT / "requirements.txt").read_text().splitlines())
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = pins_of(next(entry["pip"] for entry in packages if isinstance(entry, dict)))
    assert pip == conda
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pip.values())


def test_every_dependency_of_the_package_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.match(r"[\w-]+", text).group().lower()
        for text in [*project["dependencies"], *itertools.chain.from_iterable(extras.values())]
    }
    pinned = {name.lower() for name in pins_of((ROOT / "requirements.txt").read_text().splitlines())}
    assert wanted <= pinned


def test_the_book_lists_every_notebook_module_and_test():
    toc = (BOOK / "_toc.yml").read_text()
    assert set(re.findall(r"_executed/(\w+)", toc)) == {path.stem for path in NOTEBOOKS}
    pages = [re.findall(r"{room} (\w+)", path.read_text()) for path in (BOOK / "api").glob("*.md")]
    assert sorted(pages) == sorted([room] for room in ROOMS)
    assert set(re.findall(r"file: api/(\w+)", toc)) == set(ROOMS)
    crosswalk = (BOOK / "crosswalk.md").read_text()
    assert set(re.findall(r"_executed/(\w+)", crosswalk)) == {path.stem for path in NOTEBOOKS}
    claims = set(re.findall(r"`(tests/[\w/]+\.py)`", crosswalk))
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert claims <= tests
    assert [name for name in sorted(tests - claims) if not name.startswith(NO_CLAIM)] == []


def test_the_hook_undoes_what_running_a_notebook_leaves_in_it(tmp_path):
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (entry,) = (hook["entry"] for hook in local["hooks"] if hook["id"] == "nbstripout")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.language_info |= {
            "version": "3.11.2",
            "file_extension": ".py",
            "mimetype": "text/x-python",
        }
        notebook.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                cell.execution_count = number
                cell.outputs = [nbformat.v4.new_output("stream", text="1\n")]
                cell.metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
        nbformat.write(notebook, tmp_path / path.name)
    subprocess.run([ROOT / entry, *tmp_path.glob("*.ipynb")], cwd=ROOT, check=True)
    for path in NOTEBOOKS:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
