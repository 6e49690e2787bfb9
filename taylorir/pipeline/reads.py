"""What does a notebook read? An extension of IPython that writes it down, and the table that declares it.

The runner loads the extension into the notebook's kernel; the test compares what it wrote with the table
``notebooks/reads.yaml``, from which the Snakefile knows when a notebook has to run again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from taylorir.pipeline.parameters import PRESETS

TABLE = "reads.yaml"
TRACE_VARIABLE = "TAYLORIR_READS"  # the file that a kernel writes to
FOLDER = "data"  # below the checkout


def declared_reads(notebook: Path, parameters: Mapping[str, Any], root: Path = Path(".")) -> list[str]:
    """Data files that a notebook reads with these parameters, relative to ``root``, sorted.

    Args:
        notebook: relative to ``root``; the table lies beside it.
        parameters: all of the notebook's; they fill the table's fields, as ``{softmax}`` or ``{stored[0]}``.
        root: of the checkout.

    Returns:
        Those that exist: a parameter may name a file elsewhere, or a network without weights.

    Raises:
        ValueError: the table does not know the notebook.
    """
    table = yaml.safe_load((root / notebook).with_name(TABLE).read_text(encoding="utf-8"))
    if notebook.stem not in table:
        raise ValueError(f"{TABLE} does not say what {notebook.name} reads")
    entries = table[notebook.stem]
    return sorted({path for entry in entries for path in files_of_entry(entry, parameters, root)})


def files_of_entry(
    entry: str | Mapping[str, list[str]], parameters: Mapping[str, Any], root: Path = Path(".")
) -> list[str]:
    """The files that one entry of the table stands for, relative to ``root``: none, one, or a family.

    Args:
        entry: a pattern with fields, ``?`` for any one character and ``*`` for any; or such a pattern with
            the presets that read it.
        parameters: all of the notebook's.
        root: of the checkout.
    """
    ((pattern, presets),) = entry.items() if isinstance(entry, Mapping) else [(entry, PRESETS)]
    if parameters["preset"] not in presets:
        return []
    found = root.glob(pattern.format(**parameters))
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def traced_reads(trace: Path) -> list[str]:
    """The distinct files that a kernel wrote down, sorted."""
    return sorted(set(trace.read_text(encoding="utf-8").splitlines()))


def load_ipython_extension(_shell: object) -> None:
    """Write each data file of the checkout that this process opens to read to the file of ``TRACE_VARIABLE``.

    Python tells of its own openings. The reader of safetensors opens in Rust and does not, so it is told of.
    """
    import safetensors

    root = Path.cwd()
    trace = os.open(os.environ[TRACE_VARIABLE], os.O_WRONLY | os.O_APPEND)

    def note(path: Any) -> None:
        if not isinstance(path, str | os.PathLike):
            return
        file = Path(os.path.abspath(path))
        if file.is_relative_to(root / FOLDER) and file.is_file():
            os.write(trace, f"{file.relative_to(root).as_posix()}\n".encode())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not arguments[2] & os.O_WRONLY:
            note(arguments[0])

    open_safetensors = safetensors.safe_open

    def safe_open(filename: Any, *arguments: Any, **options: Any) -> Any:
        note(filename)
        return open_safetensors(filename, *arguments, **options)

    safetensors.safe_open = safe_open
    sys.addaudithook(hook)
