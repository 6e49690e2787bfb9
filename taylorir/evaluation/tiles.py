"""Tiles: cut a large picture into overlapping tiles, run each alone, and blend them without a seam.

Everything is counted in LR pixels but for names that say otherwise. Shape legend: C channels, T tile side, s
upscale.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from taylorir.cost import record

UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
LARGEST_AUTO_TILE = 1024
_MARGIN = 0.25  # share of an overlap, on each side, where the tile that ends there does not count
_SAFETY = 1.25  # workspaces inside operators and the allocator's own waste are not in the trace
_DEFAULT_SHARE = 0.5  # of what is free, when no budget is given


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        starts: first pixel of each tile, ascending, multiples of the window.
        size: side of a tile.
        weights: for each tile ``[size * s]`` blending weights in output pixels; over the tiles they sum to
            one.
    """

    starts: tuple[int, ...]
    size: int
    weights: tuple[np.ndarray, ...]


def plan_axis(length: int, tile: int, overlap: int, window: int, upscale: int) -> Axis:
    """Place equal tiles evenly along an axis, all on the grid of windows.

    So each tile sees the same windows as the whole image does. Neighbours overlap by at least ``overlap``
    pixels. The outer quarters of an overlap, where the nearer border of one of the two tiles spoils it most,
    are the other's alone; in the half between them a raised cosine blends.

    Args:
        length: of the axis, a multiple of ``window``.
        tile: largest side. The tiles are the smallest multiples of ``window`` that do with as many tiles.
        overlap: least number of pixels that neighbours share.
        window: grid that tiles start on.
        upscale: output pixels per pixel.

    Raises:
        ValueError: ``tile`` is smaller than the window, or leaves no advance beside the overlap.
    """
    if tile < window:
        raise ValueError(f"tile must be at least the window of {window} pixels, not {tile}")
    if overlap < 0:
        raise ValueError(f"overlap must not be negative, not {overlap}")
    size = min(tile // window * window, length)
    if size == length:
        return Axis((0,), length, (np.ones(length * upscale, np.float32),))
    stride = (size - overlap) // window * window
    if stride < 1:
        raise ValueError(f"tile must be at least overlap + window = {overlap + window} pixels, not {tile}")
    count = -(-(length - size) // stride) + 1
    shared = size - stride
    size = -(-(length + (count - 1) * shared) // (count * window)) * window
    last = (length - size) // window
    starts = tuple(int(i * last / (count - 1)) * window for i in range(count))
    ramps = []
    for i, start in enumerate(starts):
        ramp = np.ones(size * upscale)
        if i > 0:
            shared = (starts[i - 1] + size - start) * upscale
            ramp[:shared] *= _rise(shared)
        if i < count - 1:
            shared = (start + size - starts[i + 1]) * upscale
            ramp[size * upscale - shared :] *= _rise(shared)[::-1]
        ramps.append(ramp)
    total = np.zeros(length * upscale)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start * upscale : start * upscale + len(ramp)] += ramp
    weights = tuple(
        (ramp / total[start * upscale : start * upscale + len(ramp)]).astype(np.float32)
        for start, ramp in zip(starts, ramps, strict=True)
    )
    return Axis(starts, size, weights)


def _rise(count: int) -> np.ndarray:
    """Weights over an overlap, from 0 to 1: raised cosine in the middle half, flat in the outer quarters."""
    across = ((np.arange(count) + 0.5) / count - _MARGIN) / (1 - 2 * _MARGIN)
    return np.sin(np.clip(across, 0, 1) * np.pi / 2) ** 2


def blend_strips(
    image: Tensor,
    network: Callable[[Tensor], Tensor],
    rows: Axis,
    columns: Axis,
    upscale: int,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[tuple[int, Tensor]]:
    """Run the network on each tile; yield finished strips of the blended result from top to bottom.

    Only one row of tiles is held in memory.

    Args:
        image: ``[1, 3, H, W]``, sides as the two axes were planned for. It may be uint8 (0..255) to save
            memory: a tile of it is turned to float 0..1 before the network sees it.
        network: ``[1, 3, T, T']`` to ``[1, 3, s T, s T']``.
        rows: tiles along the height.
        columns: tiles along the width.
        upscale: s.
        advance: called after each tile.

    Yields:
        (first output row, float32 ``[3, rows, s W]`` on the CPU).
    """
    width, band = image.shape[-1] * upscale, rows.size * upscale
    strip = torch.zeros(3, band, width)
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            tile = image[..., top : top + rows.size, left : left + columns.size]
            tile = tile.float() / 255 if tile.dtype == torch.uint8 else tile
            weight = np.outer(rows.weights[i], columns.weights[j])
            out = network(tile)[0].float().cpu()
            strip[:, :, left * upscale : (left + columns.size) * upscale] += out * torch.from_numpy(weight)
            advance()
        end = rows.starts[i + 1] if i + 1 < len(rows.starts) else top + rows.size
        done = (end - top) * upscale
        yield top * upscale, strip[:, :done]
        strip = torch.cat([strip[:, done:], torch.zeros(3, done, width)], dim=1)


# ------------------------------------------------------------------------------------- tile sizes from memory


def parse_memory(text: str | int) -> int:
    """Bytes of ``2GiB``, ``500 MB``, ``1.5GiB`` or a plain number.

    Raises:
        ValueError: not a positive size.
    """
    cleaned = str(text).strip().upper().replace(" ", "")
    number = cleaned.rstrip("KMGIB")
    try:
        size = float(number) * UNITS[cleaned[len(number) :]]
    except (ValueError, KeyError):
        raise ValueError(f"memory must be a size such as 2GiB or 500MB, not {text!r}") from None
    if not 0 < size < float("inf"):
        raise ValueError(f"memory must be a positive size such as 2GiB, not {text!r}")
    return int(size)


def free_memory(device: torch.device) -> int:
    """Bytes that a new allocation can take on the device; 2 GiB where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2 * 2**30


def resident_memory() -> int:
    """Bytes of physical memory that this process holds; 300 MiB where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 300 * 2**20


def peak_resident_memory() -> int:
    """The most bytes of physical memory that this program has held.

    On Linux not ``ru_maxrss``: that of a new process counts what its parent held when it started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def auto_tile(
    model: nn.Module, *, window: int, upscale: int, overlap: int, output_pixels: int, memory: int | None
) -> int:
    """The largest tile side whose forward pass fits.

    The peak of live tensor bytes is measured on two small tiles and continued linearly in the tile's area.
    For a budget, what the process holds already and the output are subtracted first.

    Args:
        model: on the device that it will run on.
        window: tiles are multiples of it.
        upscale: s.
        overlap: the least overlap that the tile must have room for.
        output_pixels: pixels of the whole result, held as 8-bit RGB.
        memory: bytes that the process may hold in all on the CPU, or the network on a GPU; None: half of what
            is free.

    Raises:
        ValueError: not even the smallest tile fits.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if memory is None:
        budget = int(free_memory(device) * _DEFAULT_SHARE)
    else:
        budget = memory if device.type == "cuda" else memory - resident_memory()
    if device.type == "cpu":
        budget -= 2 * 3 * output_pixels  # the result, and its copy in the image encoder
    smallest = (overlap // window + 2) * window
    sides = probe_sides(window)
    peaks = [_SAFETY * _peak_bytes(model, side, device) for side in sides]
    slope = max((peaks[1] - peaks[0]) / (sides[1] ** 2 - sides[0] ** 2), peaks[1] / (2 * sides[1] ** 2))
    base = max(peaks[0] - slope * sides[0] ** 2, 0.0)
    affordable = int(max((budget - base) / slope, 0) ** 0.5) // window * window
    if affordable < smallest:
        need = base + slope * smallest**2 + max((memory or 0) - budget, 0)
        raise ValueError(
            f"memory is too small: a tile of {smallest} pixels needs about {need / 2**20:,.0f} MiB in all"
        )
    return max(smallest, min(affordable, LARGEST_AUTO_TILE // window * window))


def probe_sides(window: int) -> tuple[int, int]:
    """Sides of the two small tiles that are measured; an image within the larger one needs no tiles."""
    if window >= 32:
        return window, 2 * window
    return (2 * window, 4 * window) if window >= 8 else (32, 64)


@torch.inference_mode()
def _peak_bytes(model: nn.Module, side: int, device: torch.device) -> int:
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    probe = torch.zeros(1, 3, side, side, device=device, dtype=dtype)
    with record([probe, *model.parameters(), *model.buffers()]) as trace:
        model(probe)
    return int(np.cumsum(trace.events().delta).max(initial=0)) + probe.nbytes
