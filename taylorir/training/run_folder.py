"""The folder of a run: one training at a time works in it, and none overwrites another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from taylorir.networks import checkpoint_files, remove_leftovers

WEIGHTS = "weights.safetensors"


@contextlib.contextmanager
def claimed(folder: Path, *, resume: bool) -> Iterator[None]:
    """Make the folder of a run and hold it. The lock is the operating system's: it ends with the process.

    Raises:
        ValueError: another training works in it; it holds a run and ``resume`` is not set; or it holds final
            weights and no checkpoint to go on from.
        OSError: it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training works in {folder}: let it end, or choose another folder"
        ) from None
    with lock:
        begun, done = bool(checkpoint_files(folder)), (folder / WEIGHTS).exists()
        if not resume and (begun or done):
            raise ValueError(f"{folder} holds a run already: go on with --resume, or choose another folder")
        if done and not begun:
            raise ValueError(
                f"{folder} holds {WEIGHTS} and no checkpoint to go on from: choose another folder, or move "
                "the weights away to train anew"
            )
        remove_leftovers(folder)
        yield
