"""Run one notebook with papermill, and publish it only if every cell of it ran.

``python -m taylorir.pipeline.run_notebook notebooks/01_x.ipynb book/_executed/01_x.ipynb --preset smoke -p
seed 1``

Papermill alone only warns of an unknown parameter, leaves half a notebook behind when a cell fails, and calls
a notebook that quit half-way a success. Here each of these is an error (exit code 2 for a wrong call, 1 for a
notebook that failed), and the output path holds a whole notebook or what it held before.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taylorir.pipeline import reads
from taylorir.pipeline.build import end_with_parent
from taylorir.pipeline.parameters import PRESETS, check_parameters, declared_parameters, parse_value
from taylorir.rows import cpu_name, git_commit, part_path, sweep_parts

if TYPE_CHECKING:
    from types import ModuleType

    from nbformat import NotebookNode

#: What a notebook, and each of its cells, may take, by preset.
MINUTES = {"smoke": 5, "cpu": 30, "paper": 24 * 60}
BY_HAND = "taylorir_by_hand"  # as taylorir.report.glue_values marks what the book does without
SOCKET_PATH_BYTES = 103  # that every system takes
VERSIONS_SHOWN = ("torch", "numpy", "pandas", "scikit-image", "matplotlib", "papermill")


class NotebookError(RuntimeError):
    """A notebook failed, or stopped before its last cell."""


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    threads: int = 1,
    cell_minutes: float | None = None,
) -> float:
    """Execute ``source`` and write it to ``target`` if, and only if, every code cell ran without an error.

    Args:
        source: the notebook, with a cell tagged ``parameters``.
        target: where the executed notebook appears, at once and whole.
        parameters: values by name; checked by ``check_parameters``.
        threads: how many threads the kernel's PyTorch, BLAS and OpenMP may use.
        cell_minutes: that a cell may take; by default what ``MINUTES`` says of the preset.

    Returns:
        The seconds that the cells took.

    Raises:
        FileNotFoundError: if there is no such notebook.
        ValueError, TypeError: for wrong parameters, before anything is run.
        NotebookError: if a cell failed or took too long, or the kernel stopped before the last one.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such notebook")
    papermill, nbformat = _notebook_tools()
    defaults = declared_parameters(nbformat.read(source, as_version=4))
    parameters = dict(parameters or {})
    check_parameters(parameters, defaults, notebook=source.name)
    if cell_minutes is None:
        cell_minutes = MINUTES[(defaults | parameters)["preset"]]

    target.parent.mkdir(parents=True, exist_ok=True)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    started = time.perf_counter()
    with _hidden_folder(target.parent) as folder, _kernel_sockets() as sockets:
        part, trace = folder / target.name, folder / "reads"
        trace.touch()
        os.environ[reads.TRACE_VARIABLE] = str(trace.resolve())
        try:
            papermill.execute_notebook(
                source,
                part,
                parameters=parameters,
                kernel_name="python3",
                request_save_on_cell_execute=False,
                progress_bar=_progress(source.stem),
                execution_timeout=max(1, round(60 * cell_minutes)),
                extra_arguments=[f"--ext={reads.__name__}"],
                config=sockets,
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(f"{source.name}: In [{error.exec_count}] failed\n{error}") from None
        except TimeoutError as error:  # nbclient.exceptions.CellTimeoutError
            reason = f"{source.name}: a cell took more than {cell_minutes:g} minutes: {error}"
            raise NotebookError(reason) from None
        except RuntimeError as error:  # nbclient.exceptions.DeadKernelError
            raise NotebookError(f"{source.name}: the kernel stopped before the last cell: {error}") from None
        executed = nbformat.read(part, as_version=4)
        check_complete(executed, notebook=source.name)
        seconds = time.perf_counter() - started
        _prepare_for_book(executed, source, seconds=seconds, threads=threads)
        executed.metadata["taylorir"]["reads"] = reads.traced_reads(trace)
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
    for cell in executed.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.setdefault("tags", [])
        if not {"hide-input", "hide-cell", "remove-input", "remove-cell"} & set(tags):
            tags.append("hide-input")
        if {"parameters", "injected-parameters"} & set(tags):
            what = "defaults of the parameters" if "parameters" in tags else "parameters of this run"
            cell.metadata["mystnb"] = {
                "code_prompt_show": f"Show the {what}",
                "code_prompt_hide": f"Hide the {what}",
            }
        cell.outputs = [
            output
            for output in cell.outputs
            if output.get("name") != "stderr"  # progress bars
            and BY_HAND not in output.get("metadata", {})
        ]
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


@contextlib.contextmanager
def _hidden_folder(place: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, as are those that killed runners left in the same place."""
    sweep_parts(place)
    folder = part_path(place)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _kernel_sockets() -> Iterator[Any]:
    """Kernels talk over sockets in a folder of their own: no ports that two jobs could both take.

    The path of a socket is short. Where no folder for it is, ports have to do.
    """
    from traitlets.config import Config

    for place in (Path(tempfile.gettempdir()), Path("/tmp")):
        fits = len(os.fsencode(part_path(place) / "k-5")) <= SOCKET_PATH_BYTES
        if sys.platform != "win32" and fits and os.access(place, os.W_OK | os.X_OK):
            with _hidden_folder(place) as folder:
                yield Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "k")}})
            return
    yield Config()


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
    parser.add_argument("--cell-minutes", type=float, help="a cell that takes longer is ended")
    parser.add_argument("--parent", type=int, help="end with the process of this number, which started this")
    options = parser.parse_args(arguments)
    try:
        parameters = {name: parse_value(value) for name, value in options.p}
        if options.preset is not None:
            parameters["preset"] = options.preset
        if options.parent is not None:
            end_with_parent(options.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
        seconds = run_notebook(
            options.source,
            options.target,
            parameters,
            threads=options.threads,
            cell_minutes=options.cell_minutes,
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"run_notebook: error: {error}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"run_notebook: {error}", file=sys.stderr)
        return 1
    print(f"{options.source.stem}: done in {seconds:.0f} s", file=sys.stderr)
    return 0


def _end(number: int, _frame: object) -> None:
    """End by a signal as by an exception: what is half-done is removed on the way."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
