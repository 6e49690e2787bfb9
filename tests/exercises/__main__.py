"""Do the exercises as a student would: each notebook as it is, then with each of its changes.

``python -m tests.exercises [NOTEBOOK ...]``, ten minutes for all. Prints what each answer speaks of, before
and after, and whether it holds; rows go to ``rows.csv``. Cells run one after the other in this process, and
nothing is drawn.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import pandas as pd

from taylorir.pipeline.parameters import PRESETS, declared_parameters
from taylorir.report.glued import RECORD
from taylorir.rows import provenance, write_rows
from tests.exercises.exercises import ROWS, exercises_of, holds
from tests.structure.test_structure import NOTEBOOKS


def measured(notebook: Path, preset: str) -> Iterator[dict[str, Any]]:
    """A row per exercise and glued value that its answer speaks of; printed when it is there."""
    before = glued_after(notebook, {"preset": preset})
    for exercise in exercises_of(notebook):
        started = time.perf_counter()
        after = glued_after(notebook, {"preset": preset, exercise.parameter: exercise.value})
        seconds = round(time.perf_counter() - started)
        for name, expected in exercise.expected.items():
            row = {"notebook": notebook.stem, "change": exercise.change, "glued": name}
            row |= {"before": str(before[name]), "after": str(after[name]), "expected": expected}
            row["holds"] = holds(before[name], after[name], expected)
            print(" | ".join(map(str, row.values())), flush=True)
            yield row | {"preset": preset, "seconds": seconds}


def glued_after(notebook: Path, change: dict[str, Any]) -> dict[str, Any]:
    """What a notebook glues with parameters changed."""
    glued: dict[str, Any] = {}

    def record(data: dict[str, str], *, metadata: dict[str, Any], **_: Any) -> None:
        if "scrapbook" in metadata and "Figure" not in (text := data[f"{RECORD}text/plain"]):
            glued[metadata["scrapbook"]["name"]] = ast.literal_eval(text)

    names: dict[str, Any] = {}
    with mock.patch("IPython.display.display", record):
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{notebook.stem}, {cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= change
    return glued


def main() -> bool:
    """Run the notebooks that are named, or all; True if an answer does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.exercises", description=__doc__.split("\n")[0])
    by_name = {path.stem: path for path in NOTEBOOKS}
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help=f"of {', '.join(by_name)}")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="cpu, as a student runs it")
    options = parser.parse_args()
    chosen = options.notebooks or [*by_name]
    if unknown := set(chosen) - set(by_name):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    failed = False
    for name in chosen:
        rows = pd.DataFrame(measured(by_name[name], options.preset))
        seed = declared_parameters(nbformat.read(by_name[name], as_version=4)).get("seed")
        rows = rows.assign(**provenance(seed=seed))
        stored = pd.read_csv(ROWS, dtype=str) if ROWS.is_file() else rows[:0]
        others = stored[(stored["notebook"] != name) & stored["notebook"].isin(by_name)]
        write_rows(ROWS, pd.concat([others, rows]).sort_values("notebook", kind="stable"))
        failed |= not rows["holds"].all()
    return failed


if __name__ == "__main__":
    sys.exit(main())
