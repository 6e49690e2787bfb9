"""Run one notebook with papermill, and publish it only if every cell of it ran.

``python -m taylorir.pipeline.run_notebook notebooks/01_x.ipynb book/_executed/01_x.ipynb --preset smoke -p
seed 1``

Papermill alone only warns of an unknown parameter, leaves half a notebook behind when a cell fails, and calls
a notebook that quit half-way a success. Here each of these is an error (exit code 2 for a wrong call, 1 for a
notebook that failed), and the output path holds a whole notebook or what it held before.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from types import ModuleType

    from nbformat import NotebookNode

PRESETS = ("smoke", "cpu", "paper")
VERSIONS_SHOWN = ("torch", "numpy", "pandas", "scikit-image", "matplotlib", "papermill")


class NotebookError(RuntimeError):
    """A notebook failed, or stopped before its last cell."""


def declared_parameters(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters and their defaults, out of the cell tagged ``parameters``.

    Raises:
        ValueError: if there is not exactly one such cell, or a line of it is not ``name = JSON value``.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"notebook: {len(cells)} cells are tagged 'parameters', expected one")
    defaults = {}
    for statement in ast.parse(cells[0].source).body:
        simple = isinstance(statement, ast.Assign) and len(statement.targets) == 1
        if not simple or not isinstance(statement.targets[0], ast.Name):
            raise ValueError(f"parameters cell: expected 'name = value', got {ast.unparse(statement)!r}")
        try:
            defaults[statement.targets[0].id] = ast.literal_eval(statement.value)
        except ValueError:
            raise ValueError(f"parameters cell: {ast.unparse(statement)!r} is not a JSON value") from None
    return defaults


def check_parameters(
    given: Mapping[str, Any], defaults: Mapping[str, Any], *, notebook: str = "notebook"
) -> None:
    """Refuse a parameter that the notebook does not have, or whose type is not that of its default.

    An int may stand for a float; a default of ``None`` takes anything.

    Raises:
        ValueError: for an unknown name or preset.
        TypeError: for another type.
    """
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"{notebook}: unknown parameter {name!r}; it has {', '.join(defaults)}")
        wanted = defaults[name]
        if wanted is not None and not _same_type(value, wanted):
            raise TypeError(
                f"{notebook}: parameter {name} is {value!r} ({type(value).__name__}), "
                f"expected {type(wanted).__name__} as in {wanted!r}"
            )
    preset = given.get("preset", defaults.get("preset"))
    if preset not in PRESETS:
        raise ValueError(f"{notebook}: preset is {preset!r}, expected one of {', '.join(PRESETS)}")


def _same_type(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and isinstance(value, list):
        return not wanted or all(any(_same_type(item, example) for example in wanted) for item in value)
    if isinstance(wanted, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(wanted)


def run_notebook(
    source: Path, target: Path, parameters: Mapping[str, Any] | None = None, *, threads: int = 1
) -> float:
    """Execute ``source`` and write it to ``target`` if, and only if, every code cell ran without an error.

    Args:
        source: the notebook, with a cell tagged ``parameters``.
        target: where the executed notebook appears, at once and whole.
        parameters: values by name; checked by ``check_parameters``.
        threads: how many threads the kernel's PyTorch, BLAS and OpenMP may use.

    Returns:
        The seconds that the cells took.

    Raises:
        FileNotFoundError: if there is no such notebook.
        ValueError, TypeError: for wrong parameters, before anything is run.
        NotebookError: if a cell failed, or the kernel stopped before the last one.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such notebook")
    papermill, nbformat = _notebook_tools()
    parameters = dict(parameters or {})
    check_parameters(
        parameters, declared_parameters(nbformat.read(source, as_version=4)), notebook=source.name
    )

    target.parent.mkdir(parents=True, exist_ok=True)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix=f".{source.stem}.", dir=target.parent) as folder,
        tempfile.TemporaryDirectory(prefix="kernel.") as sockets,
    ):
        part = Path(folder) / target.name
        try:
            papermill.execute_notebook(
                source,
                part,
                parameters=parameters,
                kernel_name="python3",
                request_save_on_cell_execute=False,
                progress_bar=_progress(source.stem),
                config=_kernel_sockets(Path(sockets)),
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(f"{source.name}: In [{error.exec_count}] failed\n{error}") from None
        except RuntimeError as error:  # nbclient.exceptions.DeadKernelError
            raise NotebookError(f"{source.name}: the kernel stopped before the last cell: {error}") from None
        executed = nbformat.read(part, as_version=4)
        check_complete(executed, notebook=source.name)
        seconds = time.perf_counter() - started
        _prepare_for_book(executed, source, seconds=seconds, threads=threads)
        nbformat.write(executed, part)
        os.replace(part, target)
    return seconds


def _notebook_tools() -> tuple[ModuleType, ModuleType]:
    """papermill and nbformat, imported in a quarter of the time.

    With nbformat comes jsonschema, which would spend almost two seconds on a grammar for one kind of address
    that no notebook holds; where its module is missing, it does without.
    """
    sys.modules.setdefault("rfc3987_syntax", None)
    import nbformat
    import papermill

    return papermill, nbformat


def check_complete(executed: NotebookNode, *, notebook: str = "notebook") -> None:
    """Refuse a notebook in which a code cell failed, did not run, or shows a picture and not what it is.

    A picture needs an alternative text (cell metadata ``mystnb.image.alt``), and a cell with such a text
    shows one picture: it is easily lost by a semicolon, and easily shown twice.

    Raises:
        NotebookError: which names the first such cell.
    """
    for number, cell in enumerate(executed.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None or cell.metadata.get("papermill", {}).get("status") != "completed":
            raise NotebookError(f"{notebook}: cell {number} did not run to its end")
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{notebook}: cell {number} raised {output.ename}: {output.evalue}")
        shown = sum(
            any(kind.startswith("image/") for kind in output.get("data", {})) for output in cell.outputs
        )
        described = bool(cell.metadata.get("mystnb", {}).get("image", {}).get("alt"))
        if shown != described:
            text = "an" if described else "no"
            raise NotebookError(
                f"{notebook}: cell {number} has {text} alternative text and shows {shown} pictures"
            )


def _prepare_for_book(executed: NotebookNode, source: Path, *, seconds: float, threads: int) -> None:
    """Fold the code, drop what differs by machine only, and say how the notebook was run."""
    from taylorir.rows import cpu_name, git_commit

    for cell in executed.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.setdefault("tags", [])
        if not {"hide-input", "remove-input", "remove-cell"} & set(tags):
            tags.append("hide-input")
        if {"parameters", "injected-parameters"} & set(tags):
            what = "defaults of the parameters" if "parameters" in tags else "parameters of this run"
            cell.metadata["mystnb"] = {
                "code_prompt_show": f"Show the {what}",
                "code_prompt_hide": f"Hide the {what}",
            }
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]  # progress bars
    recorded = executed.metadata["papermill"]
    recorded["input_path"], recorded["output_path"] = source.name, source.name
    executed.metadata["taylorir"] = {
        "parameters": {**declared_parameters(executed), **dict(recorded.get("parameters", {}))},
        "seconds": round(seconds, 1),
        "threads": threads,
        "device": cpu_name(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in VERSIONS_SHOWN},
    }


def _kernel_sockets(folder: Path) -> Any:
    """Kernels talk over sockets in a folder of their own: no ports that two jobs could both take."""
    from traitlets.config import Config

    if sys.platform == "win32":
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "k")}})


def _progress(name: str) -> dict[str, Any]:
    return {
        "desc": name,
        "bar_format": "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}\n",
        "mininterval": 5.0,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m taylorir.pipeline.run_notebook", description=__doc__.split("\n")[0]
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--preset", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args(arguments)
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    if options.preset is not None:
        parameters["preset"] = options.preset
    try:
        seconds = run_notebook(options.source, options.target, parameters, threads=options.threads)
    except (ValueError, TypeError, OSError) as error:
        print(f"run_notebook: error: {error}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"run_notebook: {error}", file=sys.stderr)
        return 1
    print(f"{options.source.stem}: done in {seconds:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
