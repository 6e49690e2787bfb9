"""Where and when a row was measured: device, dtype, torch version, commit, seed, date."""

from __future__ import annotations

import datetime
import functools
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROVENANCE_COLUMNS = ("device", "dtype", "torch", "commit", "seed", "date")


def provenance(
    *, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32", seed: int | None = None
) -> dict[str, str | int]:
    """Columns that each measured row carries.

    Args:
        device: torch device that the measurement ran on; shown by its hardware name.
        dtype: the dtype of the computation.
        seed: the seed of the run; -1 is written when there is none.

    Returns:
        A dict with the keys of ``PROVENANCE_COLUMNS``. ``date`` is UTC, ISO 8601, to the day.
    """
    import torch

    return {
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "commit": git_commit(),
        "seed": -1 if seed is None else seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def device_name(device: str | torch.device) -> str:
    """The hardware's own name, e.g. ``NVIDIA H200`` or ``AMD EPYC (2 threads)``."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()} ({torch.get_num_threads()} threads)"


@functools.cache
def cpu_name() -> str:
    """The processor's own name, found without torch, which takes seconds to import."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def git_commit() -> str:
    """Short hash of the checked-out commit; ``+`` if this package differs from it, ``unknown`` outside git.

    Rows that a measurement writes beside the package do not count: they are not what measured.
    """
    root = Path(__file__).resolve().parents[1]
    try:
        commit = _git("rev-parse", "--short=10", "HEAD", cwd=root)
        dirty = _git("status", "--porcelain", "--", ".", cwd=root)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if dirty else "")


def _git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()
