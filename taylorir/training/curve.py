"""The learning curve of a run: rows in memory, in ``curve.csv``, and in TensorBoard where installed."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from pathlib import Path

import pandas as pd

from taylorir.rows import write_atomic

CURVE_COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    "psnr_y",
    "seconds",
    "cpu_seconds",
    "iterations_per_second",
    "data_share",
    "utilisation",
)


class Curve:
    """Rows of ``CURVE_COLUMNS``; ``psnr_y`` is NaN where it was not measured.

    ``loss`` is the mean since the row before. ``seconds`` and ``cpu_seconds`` are of training alone
    (evaluations and checkpoints are not counted) and go on over resumed runs. ``data_share`` is the part of
    a step's time that went into making the batch; ``utilisation`` is the GPU's, in percent.

    Args:
        folder: where ``curve.csv`` lies, or None to write nothing.
        step: rows after this step are dropped: they are of a run that ended before it saved.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._path = folder / "curve.csv" if folder else None
        self._rows = _read_rows(self._path, step) if self._path and step else []
        self._board = None
        if self._path:
            self._rewrite()
            if importlib.util.find_spec("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def append(self, row: dict[str, float]) -> None:
        """Add a row.

        Raises:
            OSError: ``curve.csv`` cannot be written.
        """
        self._rows.append(row)
        if self._path:
            try:
                with self._path.open("a", newline="") as file:
                    csv.writer(file).writerow([row[column] for column in CURVE_COLUMNS])
            except OSError as error:
                raise type(error)(f"cannot write {self._path}: {error.strerror or error}") from None
        if self._board:
            for column in CURVE_COLUMNS[1:]:
                if row[column] == row[column]:  # not NaN
                    self._board.add_scalar(column, row[column], row["step"])

    def frame(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self._rows, columns=list(CURVE_COLUMNS))

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._board:
            self._board.close()

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(CURVE_COLUMNS)
        writer.writerows([row[column] for column in CURVE_COLUMNS] for row in self._rows)
        write_atomic(self._path, lambda file: file.write(text.getvalue().encode()))


def read_curve(folder: Path) -> pd.DataFrame:
    """All rows that a run has written into its folder."""
    return pd.DataFrame(_read_rows(folder / "curve.csv"), columns=list(CURVE_COLUMNS))


def _read_rows(path: Path, last_step: float = math.inf) -> list[dict[str, float]]:
    """Whole rows up to ``last_step``; a last line that was cut short is dropped."""
    if not path.exists():
        return []
    rows = []
    with path.open(newline="") as file:
        for values in list(csv.reader(file))[1:]:
            try:
                row = dict(zip(CURVE_COLUMNS, map(float, values), strict=True))
            except ValueError:
                break
            if row["step"] <= last_step:
                rows.append({**row, "step": int(row["step"])})
    return rows
