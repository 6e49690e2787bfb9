"""What other people's scripts call: the names are there, cheap to import, and typed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from taylorir.pipeline.notebook_inputs import imported_modules, public_names
from tests.structure.rooms import ROOMS, ROOT

PUBLIC = {
    "taylorir": ("__version__", "build_model", "evaluate", "taylor_attention", "taylorize", "upscale"),
    "taylorir.attention": (
        "crossover_flops",
        "crossover_memory",
        "softmax_attention",
        "taylor_attention",
        "taylor_direct",
        "taylor_efficient",
    ),
    "taylorir.attribution": ("diffusion_index", "local_attribution"),
    "taylorir.cost": ("memory_of", "time_calls"),
    "taylorir.evaluation": ("evaluate", "super_resolve", "upscale_file"),
    "taylorir.images": ("imresize", "psnr", "read_image", "rgb_to_y", "ssim", "write_image"),
    "taylorir.networks": ("ModelConfig", "build_model", "load_network", "taylorize"),
    "taylorir.training": ("TrainConfig", "train"),
}
SCRIPT = """
import taylorir
import torch
from PIL import Image
{imports}
q = torch.rand(1, 2, 64, 8)
y: torch.Tensor = taylorir.taylor_attention(q, q, q)
tokens: float = crossover_flops(8) + crossover_memory(8)
model = taylorize(build_model("swinir_s_x2"), window_size=48)
saving: int = memory_of(model, 48, "train").total
picture: Image.Image = taylorir.upscale(Image.open("small.png"), 2, model=model)
luma = psnr(rgb_to_y(read_image("a.png")), rgb_to_y(read_image("b.png")))
config = TrainConfig(num_iters=10)
print(taylorir.__version__, y.shape, tokens, saving, picture.size, luma, config, taylorir.networks)
"""


@pytest.mark.parametrize("module", PUBLIC)
def test_the_names_that_scripts_rely_on_are_there(module):
    module = importlib.import_module(module)
    assert set(PUBLIC[module.__name__]) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in PUBLIC[module.__name__])


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "numpy", "pandas", "scipy", "PIL", "matplotlib"}
    code = "import sys, taylorir; dir(taylorir); taylorir.__version__; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "taylorir" in run.stdout.split() and not heavy & set(run.stdout.split())


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_script_of_a_user_type_checks(tmp_path):
    imports = [
        f"from {module} import {', '.join(names)}" for module, names in PUBLIC.items() if "." in module
    ]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(imports="\n".join(imports)))
    command = [sys.executable, "-m", "mypy", "--strict", str(script)]
    installed = os.environ | {"PYTHONPATH": str(ROOT)}  # as a package whose own errors are not the user's
    run = subprocess.run(command, cwd=ROOT, env=installed, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def annotated(module: Path) -> set[str]:
    """Names in the signatures and fields of a module: a caller holds what they stand for."""
    hints: list[ast.AST | None] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            hints += [node.returns, *(argument.annotation for argument in arguments)]
        elif isinstance(node, ast.AnnAssign):
            hints.append(node.annotation)
    return {name.id for hint in hints if hint for name in ast.walk(hint) if isinstance(name, ast.Name)}


def taken(code: str, room: str) -> set[str]:
    """What a piece of code takes of a room: by its path, from the package, or of its modules."""
    names = imported_modules(ast.parse(code), "taylorir")
    return {
        parts[-1] for name in names if (parts := name.split("."))[:2] == ["taylorir", room] and len(parts) > 2
    }


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_used(room):
    """By another room, a notebook, a page, the build or a test; or it is the type of what is used."""
    inside = ROOT / "taylorir" / room
    sources = [path for folder in ("taylorir", "tests") for path in (ROOT / folder).rglob("*.py")]
    codes = [path.read_text(encoding="utf-8") for path in sources if inside not in path.parents]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        codes.append("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    used = set().union(*(taken(code, room) for code in codes))
    pages = [(ROOT / "Snakefile").read_text(), *(page.read_text() for page in (ROOT / "book").glob("*.md"))]
    used |= {name for page in pages for name in re.findall(rf"taylorir\.{room}\.(\w+)", page)}
    used |= {
        name
        for names in re.findall(rf"from taylorir\.{room} import (.*)", pages[0])
        for name in names.split(", ")
    }
    homes = public_names(inside / "__init__.pyi")
    used |= set().union(*(annotated(inside / f"{home.replace('.', '/')}.py") for home in set(homes.values())))
    assert sorted(set(homes) - used - set(PUBLIC.get(f"taylorir.{room}", ()))) == []


@pytest.mark.parametrize("room", ROOMS)
def test_public_constants_say_what_they_are(room):
    pycode = pytest.importorskip("sphinx.pycode")
    for name, home in public_names(ROOT / "taylorir" / room / "__init__.pyi").items():
        value = getattr(importlib.import_module(f"taylorir.{room}"), name)
        if isinstance(value, str | int | float | tuple | list | dict | Path):
            comments = pycode.ModuleAnalyzer.for_module(f"taylorir.{room}.{home}").find_attr_docs()
            assert ("", name) in comments, f"{home}.{name} has no comment '#: ...' above it"
