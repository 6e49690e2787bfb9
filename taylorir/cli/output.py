"""Rows as a command gives them: a table to read, JSON to pass on, a CSV file to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

Out = Annotated[Path | None, typer.Option(help="Write the rows to this CSV file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the rows as JSON, and nothing else.")]


def check_out(out: Path | None) -> None:
    """Refuse, before anything is computed, a file that could not be written afterwards.

    Raises:
        ValueError: no .csv file.
        OSError: it cannot be written.
    """
    if out is None:
        return
    if out.suffix != ".csv":
        raise ValueError(f"--out must be a .csv file, not {out}")
    from taylorir.evaluation import check_writable

    check_writable(out)


def write_csv(rows: pd.DataFrame, out: Path | None) -> None:
    """Write the file, whole or not at all."""
    if out is not None:
        from taylorir.rows import write_rows

        write_rows(out, rows)


def print_json(rows: pd.DataFrame) -> None:
    """A list of one object a row; what is not known is null."""
    typer.echo(rows.to_json(orient="records", indent=1, double_precision=15))


def print_table(rows: pd.DataFrame) -> None:
    """Columns of text."""
    typer.echo(rows.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-"))
