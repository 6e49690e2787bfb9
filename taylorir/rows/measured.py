"""Where and when a row was measured: device, dtype, torch version, commit, seed, date."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import taylorir

if TYPE_CHECKING:
    import torch

#: What each measured row carries beside its values.
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
    """Short hash of the commit that this package is checked out at, ``+`` if the package differs from it.

    Only where the package lies in a checkout of this project: installed into an environment, or copied into
    another project, it says its version, as ``v0.1.0``. Rows that a measurement writes beside the package do
    not count as a difference: they are not what measured.
    """
    return commit_of(Path(__file__).resolve().parents[2]) or f"v{taylorir.__version__}"


def commit_of(root: Path) -> str | None:
    """The commit of a checkout of this project; None where ``root`` is none."""
    project = root / "pyproject.toml"
    try:
        name = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"]
        top = Path(_git("rev-parse", "--show-toplevel", cwd=root))
        if name != "taylorir" or top.resolve() != root.resolve():
            return None
        _git("ls-files", "--error-unmatch", "taylorir/__init__.py", cwd=root)
        commit = _git("rev-parse", "--short=10", "HEAD", cwd=root)
        dirty = _git("status", "--porcelain", "--", "taylorir", cwd=root)
    except (OSError, KeyError, ValueError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")


def _git(*arguments: str, cwd: Path) -> str:
    # a hook of git has variables that point git at its repository, whatever the folder
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip()
