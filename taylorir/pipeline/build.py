"""One build in a folder at a time, which leaves nothing running and nothing locked when it is killed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 0.5


def only_build(folder: Path = Path(".snakemake")) -> FileLock:
    """Hold a folder for this build until its process ends, however it ends.

    Snakemake's own lock outlives a process that is killed. Whoever holds this one knows such a lock to be
    left behind, and removes it.

    Args:
        folder: where Snakemake keeps its state; made when missing.

    Returns:
        The lock; it is free again when nothing refers to it any more.

    Raises:
        BlockingIOError: another build holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "build.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError("another build is at work in this folder; wait for it, or end it") from None
    shutil.rmtree(folder / "locks", ignore_errors=True)
    return lock


def end_with_parent(parent: int, end: Callable[[], object]) -> None:
    """Call ``end`` once this process is no longer a child of ``parent`` (on Windows, where there is no such
    change, never).

    A parent that is killed tells nobody; so a thread looks twice a second.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        end()

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
