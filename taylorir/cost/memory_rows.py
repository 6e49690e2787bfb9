"""The memory tables: many points, savings against each baseline, and the largest window and image within a
budget.

A row is exact and needs no clock, so its provenance is that of the source: the commit that last touched the
package and its date. The file is the same, byte for byte, whenever and on whatever machine it is made.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import multiprocessing
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from taylorir.cost.memory import CATEGORIES, COUNTED_ONLY, NETWORK_METHODS, MemoryPeak, MemoryPoint, account

#: Sides of the windows in the memory tables.
WINDOWS = (8, 16, 24, 32, 48, 64, 96)
#: Sides of their LR images.
LR_SIZES = (48, 64, 96, 128, 192, 256, 384, 512)
#: Their factors.
UPSCALES = (2, 3, 4)
BUDGETS_GIB = (8, 16, 24, 80, 141)

_KEY = tuple(field.name for field in dataclasses.fields(MemoryPoint))
COLUMNS = (
    *_KEY,
    "peak_bytes",
    "peak_memory_mib",
    *(f"{name}_bytes" for name in CATEGORIES),
    "phase",
    "device",
    "dtype",
    "torch",
    "commit",
    "seed",
    "date",
)


def memory_points(
    models: Sequence[str] = ("M", "S"),
    methods: Sequence[str] = tuple(NETWORK_METHODS),
    windows: Sequence[int] = WINDOWS,
    lr_sizes: Sequence[int] = LR_SIZES,
    upscales: Sequence[int] = UPSCALES,
    modes: Sequence[str] = ("train", "infer"),
    checkpoints: Sequence[bool] = (False, True),
) -> list[MemoryPoint]:
    """All points of a table, in a fixed order; checkpointing exists in training only."""
    return [
        MemoryPoint(model, method, checkpoint, window, size, upscale, mode)
        for model in models
        for window in windows
        for size in lr_sizes
        for mode in modes
        for method in methods
        for checkpoint in checkpoints
        if mode == "train" or not checkpoint
        for upscale in upscales
    ]


def memory_table(
    points: Sequence[MemoryPoint], out: Path | None = None, *, jobs: int = 1, progress: bool = False
) -> pd.DataFrame:
    """Account for many points, in the order given.

    Args:
        points: what to account for.
        out: CSV file to write. Rows are added to ``<out>.part`` as they come, and a later call with the same
            source and PyTorch takes them from there; the file itself appears when all are done.
        jobs: processes to work in.
        progress: show a bar.

    Returns:
        One row a point, columns ``COLUMNS``.

    Raises:
        ValueError: fewer than one job.
    """
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs}, expected at least 1")
    source = _source()
    part = None if out is None else Path(f"{out}.part")
    rows = {} if part is None else _finished(part, source)
    missing = [point for point in points if point not in rows]
    with (
        _mapper(jobs) as mapped,
        tqdm(total=len(missing), disable=not progress, unit="point") as bar,
    ):
        for peaks in mapped(_account_all, _groups(missing)):
            found = {point: _row(point, peak) | source for point, peak in peaks}
            rows |= found
            bar.update(len(found))
            if part is not None:
                _append(part, found.values())
    table = pd.DataFrame([rows[point] for point in points], columns=COLUMNS)
    if out is not None:
        part.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(part, index=False, lineterminator="\n")
        part.replace(out)
    return table


def _row(point: MemoryPoint, peak: MemoryPeak) -> dict[str, object]:
    return {
        **dataclasses.asdict(point),
        "peak_bytes": peak.total,
        "peak_memory_mib": round(peak.total / 2**20, 1),
        **{f"{name}_bytes": size for name, size in peak.parts.items()},
        "phase": peak.phase,
    }


SOURCE = (
    "attention",
    "cost/allocations.py",
    "cost/flex_attention.py",
    "cost/memory.py",
    "cost/memory_rows.py",
    "cost/tracing.py",
    "networks/config.py",
    "networks/original.py",
    "networks/position.py",
    "networks/swinir.py",
    "networks/taylorswinir.py",
    "networks/variants.py",
    "networks/windows.py",
)
"""What the numbers depend on."""


def _source() -> dict[str, object]:
    """Provenance of rows that depend on the source only: the last commit that touched it, and its date."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", *SOURCE]
        return subprocess.run(command, cwd=package, check=True, capture_output=True, text=True).stdout

    try:
        commit, date = git("log", "-1", "--format=%h %cs", "--abbrev=10").split()
        commit += "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    except (OSError, subprocess.CalledProcessError, ValueError):
        commit, date = "unknown", "unknown"
    return {
        "device": "none (accounting on fake tensors)",
        "dtype": "float32",
        "torch": torch.__version__,
        "commit": commit,
        "seed": -1,
        "date": date,
    }


def _groups(points: Iterable[MemoryPoint]) -> list[list[MemoryPoint]]:
    """Points that share traces together: all methods and scales of one size."""
    groups: dict[tuple, list[MemoryPoint]] = {}
    for point in points:
        key = (point.model, point.window_size, point.lr_size, point.mode, point.batch)
        groups.setdefault(key, []).append(point)
    return list(groups.values())


def _account_all(points: list[MemoryPoint]) -> list[tuple[MemoryPoint, MemoryPeak]]:
    return [(point, account(point)) for point in points]


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable[..., Iterable]]:
    if jobs == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(jobs, torch.set_num_threads, (1,)) as pool:
        yield pool.imap_unordered


def _append(part: Path, rows: Iterable[dict[str, object]]) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    is_new = not part.exists()
    with part.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def _finished(part: Path, source: dict[str, object]) -> dict[MemoryPoint, dict[str, object]]:
    """Whole rows of an earlier run of the same source; a last line that was cut off is left out."""
    if not part.exists():
        return {}
    rows = {}
    with part.open(newline="") as file:
        for row in csv.DictReader(file):
            if any(row.get(name) != str(value) for name, value in source.items()):
                continue
            values = {name: _parsed(text) for name, text in row.items()} | source
            rows[MemoryPoint(**{name: values[name] for name in _KEY})] = values
    return rows


def _parsed(text: str) -> object:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def with_savings(rows: pd.DataFrame, baseline: str, *, checkpoint: bool = False) -> pd.DataFrame:
    """Add ``saving``: by how much a row's peak is below that of a baseline at the same point, as a fraction.

    Args:
        rows: of ``memory_table``.
        baseline: a key of ``NETWORK_METHODS`` or of ``COUNTED_ONLY``.
        checkpoint: whether the baseline is checkpointed (in training).

    Raises:
        ValueError: an unknown method, or no row of the baseline.
    """
    known = (*NETWORK_METHODS, *COUNTED_ONLY)
    if baseline not in known:
        raise ValueError(f"baseline: got {baseline!r}, expected one of {', '.join(known)}")
    same = [name for name in _KEY if name not in ("method", "checkpoint")]
    chosen = (rows["method"] == baseline) & (rows["checkpoint"] == (checkpoint & (rows["mode"] == "train")))
    if not chosen.any():
        raise ValueError(f"baseline: the rows have none of {baseline!r} with checkpoint={checkpoint}")
    reference = rows[chosen].set_index(same)["peak_bytes"].rename("_baseline")
    joined = rows.join(reference, on=same)
    return joined.assign(saving=1 - joined["peak_bytes"] / joined["_baseline"]).drop(columns="_baseline")


def largest(point: MemoryPoint, vary: str, budget_bytes: int, *, step: int = 8, limit: int = 1 << 15) -> int:
    """The largest size at which a point's peak is within a budget, by interpolation; 0 if none is.

    Args:
        point: all but the size that varies.
        vary: "window" (one window covers the whole image) or "image" (the side of the LR image).
        budget_bytes: the budget.
        step: sizes are multiples of this; for "image" take the window.
        limit: do not look further.

    Raises:
        ValueError: another ``vary``.
    """
    if vary not in ("window", "image"):
        raise ValueError(f"vary: got {vary!r}, expected window or image")

    def peak(steps: int) -> int:
        size = {"lr_size": steps * step} | ({"window_size": steps * step} if vary == "window" else {})
        return _peak_bytes(dataclasses.replace(point, **size))

    low, high, most = 0, 1, limit // step
    while high <= most and peak(high) <= budget_bytes:
        low, high = high, 2 * high
    if high > most:
        high = most + 1  # too much by definition
    turn = 0
    while high - low > 1:
        middle, turn = (low + high) // 2, turn + 1
        if low and high <= most and turn % 3:  # peaks follow powers of the size: interpolate, mostly
            below, above = math.log(peak(low)), math.log(peak(high))
            part = (math.log(budget_bytes) - below) / (above - below)
            middle = min(max(round(low * (high / low) ** part), low + 1), high - 1)
        low, high = (middle, high) if peak(middle) <= budget_bytes else (low, middle)
    return low * step


@functools.cache
def _peak_bytes(point: MemoryPoint) -> int:
    return account(point).total


def limit_points() -> list[MemoryPoint]:
    """What the table of limits asks for: SwinIR-M at x2, every method, in training and in inference."""
    return [
        MemoryPoint("M", method, checkpoint, 48, 48, 2, mode)
        for mode in ("train", "infer")
        for method in NETWORK_METHODS
        for checkpoint in (False, True)
        if mode == "train" or not checkpoint
    ]


def limit_rows(
    points: Sequence[MemoryPoint],
    varies: Sequence[str] = ("window", "image"),
    budgets_gib: Sequence[int] = BUDGETS_GIB,
    *,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """The largest window, and the largest image at the window of a point, within each budget.

    Args:
        points: what to ask for; their ``lr_size`` plays no part.
        varies: "window", "image" or both, as for :func:`largest`.
        budgets_gib: the budgets.
        jobs: processes to work in.
        progress: show a bar.
    """
    tasks = [(point, vary, tuple(budgets_gib)) for point in points for vary in varies]
    with _mapper(jobs) as mapped:
        found = dict(tqdm(mapped(_largest_sizes, tasks), total=len(tasks), disable=not progress))
    source, rows = _source(), []
    for point, vary, budgets in tasks:
        key = {name: value for name, value in dataclasses.asdict(point).items() if name != "lr_size"}
        if vary == "window":
            key["window_size"] = -1
        for budget, size in zip(budgets, found[point, vary, budgets], strict=True):
            rows.append(key | {"vary": vary, "budget_gib": budget, "largest": size} | source)
    return pd.DataFrame(rows)


def _largest_sizes(task: tuple[MemoryPoint, str, tuple[int, ...]]) -> tuple[tuple, list[int]]:
    point, vary, budgets = task
    step = 8 if vary == "window" else point.window_size
    return task, [largest(point, vary, budget * 2**30, step=step) for budget in budgets]
