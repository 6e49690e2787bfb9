"""Read the rows that were measured once and are kept in the repository."""

from __future__ import annotations

import os

import pandas as pd

from taylorir.rows.folders import RESULTS_FOLDER

_TEXT = {"image": str, "weights": str}  # either may consist of digits alone


def read_rows(name: str | os.PathLike[str]) -> pd.DataFrame:
    """Measured rows.

    Args:
        name: of a file in ``data/results``, as ``"bicubic.csv"``; or an absolute path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = RESULTS_FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"there are no rows {path}")
    return pd.read_csv(path, dtype=_TEXT)
