"""How much memory a run may take, what it will take, and the largest tile that keeps the promise.

Everything is in bytes but for messages, which are in MiB.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn

from taylorir.cost import allocations

_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
UNITS = {"": 1, "B": 1}
UNITS |= {f"{letter}B": 1000**power for letter, power in _POWERS.items()}
UNITS |= {letter + end: 1024**power for letter, power in _POWERS.items() for end in ("", "I", "IB")}
LARGEST_AUTO_TILE = 1024
_SAFETY = 1.25  # workspaces inside operators and the allocator's own waste are not in the trace
_OUTPUT_COPIES = 4  # of a tile's float result: the ensemble's sum and its turned copy, weighted, beside
_DEFAULT_SHARE = 0.5  # of what is free, when nothing was promised
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def parse_memory(text: str | int) -> int:
    """Bytes of ``2GiB``, ``512M``, ``1.5 GB`` or a plain number.

    ``KB``, ``MB``, ``GB``, ``TB`` are powers of 1000; ``K``, ``Ki``, ``KiB`` and so on are powers of 1024.

    Raises:
        ValueError: not a positive size.
    """
    cleaned = str(text).strip().upper().replace(" ", "")
    number = cleaned.rstrip("KMGTIB")
    try:
        size = float(number) * UNITS[cleaned[len(number) :]]
    except (ValueError, KeyError):
        raise ValueError(f"memory must be a size such as 2GiB or 500MB, not {text!r}") from None
    if not 1 <= size < float("inf"):
        raise ValueError(f"memory must be a positive size such as 2GiB, not {text!r}")
    return int(size)


# ------------------------------------------------------------------------------ what the system has and gives


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that new allocations can take: of the GPU, or of the machine and of the container in it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, *_container_rooms(_CGROUPS, _OWN_CGROUPS))


def _container_rooms(root: Path, membership: Path) -> list[int]:
    """What each control group (version 1 or 2) that this process is in leaves; at least one number.

    A group's limit holds for all below it. Inside a container the path of the group may be the host's, with
    only its last part mounted at the root; folders that are not there are passed over. Cached files are
    given back when memory gets short, so those not in use do not count as taken.
    """
    rooms = [sys.maxsize]
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for _, kinds, path in (line.split(":", 2) for line in lines):
        if kinds == "":
            base, limit, usage, cached = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            base, cached = root / "memory", "total_inactive_file"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            try:
                most, taken = ((folder / name).read_text().strip() for name in (limit, usage))
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if most != "max":
                rooms.append(max(int(most) - int(taken) + int(statistics.get(cached, 0)), 0))
    return rooms


def resident_memory() -> int:
    """Bytes of physical memory that this process holds, what was freed and not given back yet included."""
    return psutil.Process().memory_info().rss


def peak_resident_memory() -> int:
    """The most bytes of physical memory that this program has held; on macOS, which does not tell, now.

    On Linux not ``ru_maxrss``: that of a new process counts what its parent held when it started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return max(int(peak) * 1024, resident_memory())  # the kernel notes the peak now and then
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)


def give_back_freed() -> None:
    """Return to the system what was freed, where the C library (glibc) keeps it for later."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


# ------------------------------------------------------------------------------------------ tiles that fit


@dataclass(frozen=True)
class TileCost:
    """What running a network in tiles holds, beside what the process holds already.

    Attributes:
        fixed, per_pixel: live bytes at the peak of a forward pass, linear in the tile's pixels.
        device: that the network is on.
        window, overlap, upscale: as in :func:`taylorir.evaluation.plan_axis`.
    """

    fixed: float
    per_pixel: float
    device: torch.device
    window: int
    overlap: int
    upscale: int

    def forward(self, size: tuple[int, int], tile: int) -> float:
        """Bytes of the network on one tile of an image of ``size`` pixels, on its device."""
        return self.fixed + self.per_pixel * min(tile, size[0]) * min(tile, size[1])

    def blending(self, size: tuple[int, int], tile: int) -> float:
        """Bytes of a tile's result and of the overlaps that wait for the next tiles, on the CPU."""
        height, width = (min(tile, side) for side in size)
        waiting = (
            self.overlap + 3 * self.window if tile < max(size) else 0
        )  # tiles lie on the grid of windows
        pixels = _OUTPUT_COPIES * height * width + waiting * (min(size) + max(height, width))
        return 3 * 4 * self.upscale**2 * pixels

    def total(self, size: tuple[int, int], tile: int) -> float:
        """Bytes that count against the budget: on the CPU all, on a GPU those of the network."""
        rest = self.blending(size, tile) if self.device.type == "cpu" else 0
        return self.forward(size, tile) + rest

    @property
    def smallest(self) -> int:
        """The smallest tile that leaves an advance beside the overlap."""
        return (self.overlap // self.window + 2) * self.window


def probe_sides(window: int) -> tuple[int, int]:
    """Sides of the two small tiles that are measured; an image within the larger one needs no tiles."""
    if window >= 32:
        return window, 2 * window
    return (2 * window, 4 * window) if window >= 8 else (32, 64)


def tile_cost(model: nn.Module, *, window: int, overlap: int, upscale: int, channels: int = 3) -> TileCost:
    """Measure the peak of live tensor bytes on two small tiles, and continue it linearly in the area."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    sides = probe_sides(window)
    peaks = [_SAFETY * _peak_bytes(model, (channels, side, side), device) for side in sides]
    slope = max((peaks[1] - peaks[0]) / (sides[1] ** 2 - sides[0] ** 2), peaks[1] / (2 * sides[1] ** 2))
    base = max(peaks[0] - slope * sides[0] ** 2, 0.0)
    return TileCost(base, slope, device, window, overlap, upscale)


@torch.inference_mode()
def _peak_bytes(model: nn.Module, shape: tuple[int, int, int], device: torch.device) -> int:
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    probe = torch.zeros(1, *shape, device=device, dtype=dtype)
    with allocations.record([probe, *model.parameters(), *model.buffers()]) as trace:
        model(probe)
    return int(np.cumsum(trace.events().delta).max(initial=0)) + probe.nbytes


def choose_tile(
    cost: TileCost,
    size: tuple[int, int],
    tile: int | str | None,
    *,
    memory: int | None,
    reserved: int,
) -> int | None:
    """The tile to work in: as given where it keeps the promise, or the largest that does.

    Args:
        cost: of the network.
        size: LR pixels of the padded image, (height, width).
        tile: a side, ``"auto"``, or None for the whole image.
        memory: bytes that the process may hold in all on the CPU, or the network on a GPU; None: for
            ``"auto"`` half of what is free, else no limit.
        reserved: bytes on the CPU that will be taken beside the tiles.

    Returns:
        A side, or None for the whole image.

    Raises:
        ValueError: the tile does not fit, or for ``"auto"`` not even the smallest; it says what is needed.
    """
    on_cpu = cost.device.type == "cpu"
    give_back_freed()
    reserved = reserved if on_cpu else 0
    held = resident_memory() + reserved if on_cpu else 0
    if memory is not None:
        most = likely = memory - held
    elif tile == "auto":
        most = available_memory(cost.device) - reserved
        likely = most * _DEFAULT_SHARE
    else:
        return tile
    if tile == "auto":
        sides = range(LARGEST_AUTO_TILE // cost.window * cost.window, cost.smallest, -cost.window)
        tile = next((side for side in sides if cost.total(size, side) <= likely), cost.smallest)
    side = max(size) if tile is None else tile
    if (needed := cost.total(size, side)) > most:
        raise ValueError(
            f"memory is too small: {'the whole image' if tile is None else f'a tile of {side} pixels'} needs "
            f"about {(held + needed) / 2**20:,.0f} MiB in all, of {(held + most) / 2**20:,.0f} MiB"
        )
    return None if side >= max(size) else side
