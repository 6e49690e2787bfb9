"""The measured crossovers of the C++ kernels: a table that one command writes, here or elsewhere."""

from __future__ import annotations

import csv
import functools
import math
import os
from itertools import pairwise
from pathlib import Path

CROSSOVERS = Path(__file__).resolve().parents[1] / "crossovers.csv"
"""Written by ``python -m taylorir.cost.crossovers``; the variable TAYLORIR_CROSSOVERS names another one."""


def measured_crossover(head_dim: int) -> float:
    """The number of tokens from which the efficient form is the faster one.

    Between the widths of the table log N is taken as linear in log d; beyond them N over N0 stays.

    Raises:
        OSError, ValueError, KeyError: the table that TAYLORIR_CROSSOVERS names is none.
    """
    return _interpolated(Path(os.environ.get("TAYLORIR_CROSSOVERS") or CROSSOVERS), head_dim)


@functools.cache
def _interpolated(table: Path, head_dim: int) -> float:
    with table.open(newline="", encoding="utf-8") as file:
        points = sorted((int(row["head_dim"]), float(row["num_tokens"])) for row in csv.DictReader(file))
    if not points:
        raise ValueError(f"{table} holds no crossover")
    (narrowest, _), (widest, _) = points[0], points[-1]
    if not narrowest < head_dim < widest:
        width, tokens = points[0] if head_dim <= narrowest else points[-1]
        return tokens * (head_dim**2 + head_dim + 1) / (width**2 + width + 1)
    (low, at_low), (high, at_high) = next(pair for pair in pairwise(points) if head_dim <= pair[1][0])
    part = math.log(head_dim / low) / math.log(high / low)
    return at_low ** (1 - part) * at_high**part
