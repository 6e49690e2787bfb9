"""Processes that are killed before the n-th operation on files, and then done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

FORKS = multiprocessing.get_context("forkserver")
# Each process of its own has torch from the start, and what torch imports for an optimiser.
FORKS.set_forkserver_preload(["taylorir.training.loop", "torch._dynamo", "pytest"])

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")


def kill_and_go_on(work: Callable[[Path], object], root: Path, *, sampled: int = 12) -> dict[int, Path]:
    """Do the work in folders of its own, each time killed before another operation on files, and go on.

    Operations are opening, making, renaming, removing, flushing and locking files. All of them are taken
    where the variable TAYLORIR_ALL_KILL_POINTS is set.

    Args:
        work: a function of a module; called again with the same folder, it must go on.
        root: where the folders are made.
        sampled: how many operations are taken, spread over all.

    Returns:
        The folder of each operation by its number, from 1; under 0, that of a process which nobody killed.
    """
    points = FORKS.SimpleQueue()
    process = FORKS.Process(target=_all, args=(work, root, sampled, points))
    process.start()
    process.join(600)
    assert process.exitcode == 0
    return {point: root / str(point) for point in points.get()}


def _all(work: Callable[[Path], object], root: Path, sampled: int, points: object) -> None:
    """Fork from one process that has done the work before, which saves each fork its first steps."""
    import torch

    torch.set_num_threads(1)
    work(root / "warm")
    total = FORKS.RawValue("i", 0)
    assert _fork(work, root / "0", 0, total) == 0
    assert total.value >= 60, total.value
    every = os.environ.get("TAYLORIR_ALL_KILL_POINTS")
    fatal = range(1, total.value + 1) if every else np.linspace(1, total.value, sampled).round().astype(int)
    for point in fatal:
        assert _fork(work, root / str(point), point, total) == -signal.SIGKILL, point
        assert _fork(work, root / str(point), 0, total) == 0, point
    points.put([0, *map(int, fatal)])


def _fork(work: Callable[[Path], object], folder: Path, fatal: int, counted: object) -> int:
    """The exit code of the work in a fork; SIGKILL comes before the operation number ``fatal``."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        counted.value = 0

        def count() -> None:
            counted.value += 1
            if counted.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, details: tuple) -> None:
            if event == "fcntl.flock" or (event in OPERATIONS and str(details[0]).startswith(str(folder))):
                count()

        fsync = os.fsync

        def counted_fsync(descriptor: int) -> None:
            count()
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(hook)
        work(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
