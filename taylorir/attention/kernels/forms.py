"""Which passes compute the numbers: of the direct or the efficient form, in plain PyTorch or in C++.

Shape legend: q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; labels [B, N] and [B, M]
"""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from taylorir.attention.kernels import cpp_operator, direct, efficient
from taylorir.attention.kernels.segments import (
    Execution,
    Segment,
    current_execution,
    labels_of_segments,
    whole_windows,
)
from taylorir.attention.reference import taylor_direct, taylor_sums

CROSSOVERS = Path(__file__).resolve().parents[1] / "crossovers.csv"
"""Written by ``python -m taylorir.cost.crossovers``; the variable TAYLORIR_CROSSOVERS names another one."""

Labels = tuple[Tensor, Tensor] | None
"""Of the queries and of the keys; one object where both are the same tokens."""


class Form(NamedTuple):
    """How numbers are computed.

    Attributes:
        forward, backward: the passes of :mod:`efficient`, :mod:`direct` or :mod:`cpp_operator`.
        definition: what they compute.
        arrange: how labels tell the passes who attends to whom.
        labels: those of an arrangement of q and k.
    """

    forward: Callable[..., list[Tensor]]
    backward: Callable[..., list[Tensor | None]]
    definition: Callable[..., Tensor]
    arrange: Callable[[Tensor, Tensor, Labels, Execution], list[Segment] | Labels]
    labels: Callable[[list[Segment] | Labels, Tensor, Tensor], Labels]


def _direct_in_regions(q, k, v, *, temperature, regions: Labels, scale_output: bool) -> Tensor:
    """:func:`taylor_direct` with labels as a mask, which asks for no value of theirs."""
    mask = None
    if regions is not None:
        mask = regions[0][..., None, :, None] == regions[1][..., None, None, :]
    return taylor_direct(q, k, v, temperature=temperature, mask=mask, scale_output=scale_output)


def _in_segments(q: Tensor, k: Tensor, labels: Labels, execution: Execution) -> list[Segment]:
    if labels is None:
        return whole_windows(q.shape[0], q.shape[2], k.shape[2])
    return execution.segments(*labels)


def _as_labels(q: Tensor, k: Tensor, labels: Labels, execution: Execution) -> Labels:
    return None if labels is None else cpp_operator.labels_of(*labels)


def _unchanged(labels: Labels, q: Tensor, k: Tensor) -> Labels:
    return labels


def _in_cpp(efficient: bool, definition: Callable[..., Tensor]) -> Form:
    passes = (
        functools.partial(x, efficient=efficient) for x in (cpp_operator.forward, cpp_operator.backward)
    )
    return Form(*passes, definition, _as_labels, _unchanged)


DIRECT = Form(direct.forward, direct.backward, _direct_in_regions, _in_segments, labels_of_segments)
EFFICIENT = Form(efficient.forward, efficient.backward, taylor_sums, _in_segments, labels_of_segments)
FORMS = {
    "torch": (DIRECT, EFFICIENT),
    "cpp": (_in_cpp(False, _direct_in_regions), _in_cpp(True, taylor_sums)),
}


def backend_of(backend: str, q: Tensor) -> str:
    """Which of "torch" and "cpp" runs: "auto" is cpp on the CPU where it can be built, or TAYLORIR_BACKEND.

    Raises:
        ValueError: "cpp" where it cannot be built, or another name.
    """
    if backend == "auto" and q.is_cpu and not torch._C._len_torch_dispatch_stack():
        backend = os.environ.get("TAYLORIR_BACKEND", "cpp or torch")
    if backend in ("auto", "torch") or current_execution() is not None or q.numel() == 0:
        return "torch"  # who counts operators is to see PyTorch's
    if backend not in ("cpp or torch", "cpp"):
        raise ValueError(f"TAYLORIR_BACKEND must be 'torch' or 'cpp', got {backend!r}")
    if cpp_operator.load():
        return "cpp"
    if backend == "cpp":
        raise ValueError("backend 'cpp' needs a C++ compiler (the log says what is missing); use 'auto'")
    return "torch"


def cheaper_form(q: Tensor, k: Tensor, crossover: float | None, backend: str = "torch") -> Form:
    """The efficient form from the crossover on, which meets the harmonic mean of N and M.

    None is N0 of d, or what was measured for the C++ kernels.
    """
    queries, keys, d = q.shape[-2], k.shape[-2], q.shape[-1]
    if crossover is None:
        crossover = measured_crossover(d) if backend == "cpp" else d * d + d + 1
    return FORMS[backend][2 * queries * keys >= crossover * (queries + keys)]


def measured_crossover(head_dim: int, *, tiles: bool | None = None) -> float:
    """The number of tokens from which the efficient form is the faster one.

    Between the widths of the table log N is taken as linear in log d; beyond them N over N0 stays.

    Args:
        head_dim: d.
        tiles: with the tile unit or without, where the table has both; None is as the kernels run here.

    Raises:
        OSError, ValueError, KeyError: the table that TAYLORIR_CROSSOVERS names is none.
    """
    tiles = cpp_operator.uses_tiles() if tiles is None else tiles
    return _interpolated(os.environ.get("TAYLORIR_CROSSOVERS", ""), head_dim, tiles)


@functools.cache
def _interpolated(named: str, head_dim: int, tiles: bool) -> float:
    table = Path(named) if named else CROSSOVERS
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("tiles", str(tiles)) == str(tiles)]
    points = sorted((int(row["head_dim"]), float(row["num_tokens"])) for row in rows)
    if not points:
        raise ValueError(f"{table} holds no crossover")
    (narrowest, _), (widest, _) = points[0], points[-1]
    if not narrowest < head_dim < widest:
        width, tokens = points[0] if head_dim <= narrowest else points[-1]
        return tokens * (head_dim**2 + head_dim + 1) / (width**2 + width + 1)
    (low, at_low), (high, at_high) = next(pair for pair in pairwise(points) if head_dim <= pair[1][0])
    part = math.log(head_dim / low) / math.log(high / low)
    return at_low ** (1 - part) * at_high**part
