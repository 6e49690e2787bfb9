"""How the GPU kernels are launched: on which devices, in which tiles, on which tables of regions.

Shape legend
    B windows of all images, H heads, N tokens of q and M of k, d width of q and k, d_v width of v
    D, C d and d_v padded to 16, 32 or 64 inside the kernels
    P    windows that the labels of regions distinguish; the batch repeats them
    S    segments: a region of a window each;  T tiles, each at most ``tile_size`` tokens of a segment
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

_ENOUGH_PROGRAMS = 512  # below this many, the tokens of a segment are split over programs


class KernelConfig(NamedTuple):
    """How a kernel is compiled and cut up.

    Attributes:
        tile_size: tokens of a tile.
        num_warps: warps of a program.
        num_stages: depth of the pipeline of loads.
        maxnreg: registers of a thread at most, so that more programs share a multiprocessor; None: no limit.
    """

    tile_size: int
    num_warps: int = 4
    num_stages: int = 1
    maxnreg: int | None = None

    def options(self) -> dict[str, int]:
        limit = {} if self.maxnreg is None else {"maxnreg": self.maxnreg}
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, **limit}


FAMILIES = {
    **dict.fromkeys(("sm_80", "sm_86", "sm_87", "sm_89", "sm_120", "sm_121"), "sm_80"),
    "sm_90": "sm_90",
    **dict.fromkeys(("sm_100", "sm_103"), "sm_100"),
    "gfx942": "gfx942",
}
"""The row of ``CONFIGS`` for each target that the compiler was asked for."""


def _three(moments: tuple, readout: tuple, pullback: tuple) -> dict[str, KernelConfig]:
    return {
        "moments": KernelConfig(*moments),
        "readout": KernelConfig(*readout),
        "pullback": KernelConfig(*pullback),
    }


# By family, whether q is bfloat16, and the padded width max(D, C). Chosen from the stack, registers and
# instructions that the compiler reports (python -m taylorir.cost.triton_report). Only those of sm_90 have run
# on a GPU; python -m taylorir.cost.gpu_attention --tune measures others.
CONFIGS: dict[str, dict[bool, dict[int, dict[str, KernelConfig]]]] = {
    "sm_80": {
        True: {
            16: _three((64, 4, 3), (128, 4, 2, 128), (64, 4, 2, 128)),
            32: _three((32, 4, 3), (128, 8, 2, 128), (128, 8, 2)),
            64: _three((32, 8, 2), (64, 8, 2), (32, 4, 2)),
        },
        False: {
            16: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            32: _three((16, 4, 2), (64, 4, 2), (64, 4, 2)),
            64: _three((16, 8, 1), (32, 8, 1), (16, 8, 2)),
        },
    },
    "sm_90": {
        True: {
            16: _three((64, 4, 3, 128), (128, 4, 2, 128), (64, 4, 2, 128)),
            32: _three((32, 4, 3, 128), (128, 8, 2, 128), (128, 8, 2, 128)),
            64: _three((32, 8, 2), (64, 8, 2), (64, 4, 2)),
        },
        False: {
            16: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            32: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            64: _three((32, 8, 1), (64, 8, 1), (64, 8, 2)),
        },
    },
    "sm_100": {
        True: {
            16: _three((64, 4, 3), (128, 4, 2, 128), (64, 4, 2, 128)),
            32: _three((32, 4, 3, 128), (128, 8, 2, 128), (128, 8, 2)),
            64: _three((32, 8, 2), (64, 8, 2), (64, 4, 2)),
        },
        False: {
            16: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            32: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            64: _three((32, 8, 1), (64, 8, 1), (64, 8, 2)),
        },
    },
    "gfx942": {
        True: {
            16: _three((64, 4, 3), (128, 4, 2), (64, 4, 2)),
            32: _three((32, 4, 3), (128, 8, 2), (128, 8, 2)),
            64: _three((32, 8, 2), (64, 8, 2), (64, 4, 2)),
        },
        False: {
            16: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            32: _three((32, 4, 2), (64, 4, 2), (64, 4, 2)),
            64: _three((32, 8, 1), (64, 8, 1), (64, 8, 2)),
        },
    },
}

_log = logging.getLogger(__name__)


def interpreted() -> bool:
    """Whether Triton was told to run kernels on the CPU, in Python."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@torch.compiler.assume_constant_result
def family_of(device: torch.device) -> str | None:
    """The family in ``CONFIGS`` of a device; None where there is none, which the log says once for a GPU."""
    if interpreted():
        return "sm_90"
    return _family_of_target(_target(device)) if device.type == "cuda" else None


@functools.cache
def _target(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


@functools.cache
def _family_of_target(target: str) -> str | None:
    if target not in FAMILIES:
        _log.warning("The Triton kernels have no tile sizes for %s; plain PyTorch serves there.", target)
    return FAMILIES.get(target)


def padded(width: int) -> int:
    """The width that the kernels pad d or d_v to."""
    return max(16, 1 << (width - 1).bit_length())


@dataclasses.dataclass(frozen=True)
class RegionTables:
    """Which tokens see each other, for the kernels: int32 on the device of the labels.

    A segment is one region of one window, its tokens one run of ``order``, so that a window costs the same
    however many regions it has, and their number has no bound.

    Attributes:
        windows: P.
        order: [P, N] rows of each window, sorted by label.
        segments: [S, 5] segment, window, first place in ``order``, end, number of tokens.
        tiles: [T, 5] the same, cut into tiles; the last column is the whole segment's number of tokens.
    """

    windows: int
    order: Tensor
    segments: Tensor
    tiles: Tensor


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Labels that tables were made of. ``alias`` keeps their memory from being given to others."""

    alias: Tensor
    version: int | None
    content: Tensor
    tables: RegionTables

    def is_of(self, labels: Tensor, version: int | None) -> bool:
        if version is not None:
            return version == self.version
        return torch.equal(_distinct(labels), self.content)


_KEPT = 16
_seen: OrderedDict[tuple, _Seen] = OrderedDict()
_seen_lock = threading.Lock()


def region_tables(labels: Tensor, tile_size: int, *, versioned: bool = True) -> RegionTables:
    """The tables of labels [..., N]; axes that only repeat (stride 0) are windows counted once.

    Sorting needs looks at the labels from the host, which wait for the device. A model passes the same labels
    in every block and at every step, so the tables of the labels last seen are kept. A write to the labels
    changes their version, which is known without waiting; where it may not, their values are compared.

    Args:
        labels: integers, of any strides.
        tile_size: tokens of a tile.
        versioned: whether every write to the labels changes their version. Code that ``torch.compile`` made
            writes into its buffers without.
    """
    version = _version(labels) if versioned else None
    place = (labels.untyped_storage()._cdata, labels.storage_offset(), tuple(labels.shape), labels.stride())
    key = (*place, labels.dtype, tile_size, version is None)
    with _seen_lock:
        seen = _seen.get(key)
    if seen is None or not seen.is_of(labels, version):
        content = _distinct(labels).clone()
        seen = _Seen(labels.detach(), version, content, _build_tables(content, tile_size))
        if labels.is_cuda:  # another thread may read them on another stream
            torch.cuda.current_stream(labels.device).synchronize()
    with _seen_lock:
        _seen[key] = seen
        _seen.move_to_end(key)
        if len(_seen) > _KEPT:
            _seen.popitem(last=False)
    return seen.tables


def _version(labels: Tensor) -> int | None:
    """None where writes go uncounted: by inference mode, and through NumPy to memory of the CPU."""
    return labels._version if labels.is_cuda and not labels.is_inference() else None


def _distinct(labels: Tensor) -> Tensor:
    """[P, N]: the labels without leading axes that only repeat."""
    while labels.ndim > 1 and (labels.stride(0) == 0 or labels.shape[0] == 1):
        labels = labels[0]
    return labels.reshape(-1, labels.shape[-1])


def _build_tables(labels: Tensor, tile_size: int) -> RegionTables:
    windows, tokens = labels.shape
    ranked, order = labels.sort(dim=-1, stable=True)
    begins = torch.ones_like(ranked, dtype=torch.bool)
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = begins.flatten().nonzero().flatten()  # [S] places in [P * N]
    end = torch.cat((first[1:], first.new_tensor([windows * tokens])))
    window = first // tokens
    segment = torch.arange(len(first), device=first.device)
    rows = torch.stack((segment, window, first - window * tokens, end - window * tokens, end - first), dim=1)
    repeats = (rows[:, 4] + tile_size - 1) // tile_size
    tiles = rows.repeat_interleave(repeats, dim=0)
    number = torch.arange(len(tiles), device=first.device) - (repeats.cumsum(0) - repeats)[tiles[:, 0]]
    tiles[:, 2] += number * tile_size
    return RegionTables(windows, *(x.int().contiguous() for x in (order, rows, tiles)))


class KernelCalls:
    """The shapes of one call of the operator, and the three kernels on them."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None, versioned: bool):
        from taylorir.attention.kernels import triton_kernels

        self.kernels = triton_kernels
        self.place = q.device
        self.B, self.H, _, self.d = q.shape
        self.keys, self.dv = v.shape[2:]
        self.D, self.C = padded(self.d), padded(self.dv)
        self.dtype = q.dtype
        self.family = family_of(q.device)
        self.configs = CONFIGS[self.family][q.dtype == torch.bfloat16][max(self.D, self.C)]
        self.regions, self.versioned = regions if self.B else None, versioned

    def device(self):
        return torch.cuda.device(self.place) if self.place.type == "cuda" else contextlib.nullcontext()

    def moments(self, x, z, den, h, tau, *, query: bool) -> tuple[Tensor, Tensor]:
        """high and low of (k, v), or with ``query`` the dual ones of (q, dy / den)."""
        config, D, C = self.configs["moments"], self.D, self.C
        tokens = x.shape[2]
        windows, segments, _, table, order = self._tables(config, tokens)
        jobs = D // 16 * (D // 16 + 1) // 2 + 1
        states = self.B // windows * segments
        programs = states * self.H * jobs
        splits = max(1, min(_ENOUGH_PROGRAMS // max(programs, 1), tokens // (4 * config.tile_size)))
        high = x.new_empty((states, splits, self.H, D * D * C), dtype=torch.float32)
        low = x.new_empty((states, splits, self.H, D * (C + D) + D + C), dtype=torch.float32)
        self.kernels.moments_kernel[(programs * splits,)](
            x, z, den, h, tau, table, order, high, low,
            *_outer(x, z), tokens, self.H, windows, segments,
            x_sn=x.stride(2), z_sn=z.stride(2), SPLITS=splits, **self._constants(config, query, x, z),
        )  # fmt: skip
        if splits == 1:
            return high[:, 0], low[:, 0]
        return high.sum(1), low.sum(1)

    def readout(self, x, tau, high, low, out, den, *, query: bool) -> None:
        """y and den into ``out`` and ``den``, or without ``query`` dv into ``out``."""
        config, tokens = self.configs["readout"], x.shape[2]
        windows, segments, tiles, table, order = self._tables(config, tokens, cut=True)
        self.kernels.readout_kernel[(self.B // windows * tiles * self.H,)](
            x, tau, table, order, high, low, out, den,
            *_outer(x, out), tokens, self.keys, self.H, windows, segments, tiles,
            x_sn=x.stride(2), out_sn=out.stride(2), **self._constants(config, query, x, out),
        )  # fmt: skip

    def pullback(self, x, z, den, h, tau, high, low, dx, *, query: bool) -> Tensor:
        """dq into ``dx`` and (K3) into ``h`` (returns dtau [H]), or without ``query`` dk into ``dx``."""
        config, tokens = self.configs["pullback"], x.shape[2]
        windows, segments, tiles, table, order = self._tables(config, tokens, cut=True)
        dtau = tau.new_empty((self.B // windows * tiles if query else 1, self.H))
        self.kernels.pullback_kernel[(self.B // windows * tiles * self.H,)](
            x, z, den, h, tau, table, order, high, low, dx, dtau,
            *_outer(x, z, dx), tokens, self.H, windows, segments, tiles,
            x_sn=x.stride(2), z_sn=z.stride(2), dx_sn=dx.stride(2),
            **self._constants(config, query, x, z, dx),
        )  # fmt: skip
        return dtau.sum(0)

    def _tables(
        self, config: KernelConfig, tokens: int, cut: bool = False
    ) -> tuple[int, int, int, Tensor | None, Tensor | None]:
        """Windows, segments, tiles of a repetition; the table of segments (``cut``: tiles); the order."""
        if self.regions is None:
            return 1, 1, -(-tokens // config.tile_size), None, None
        tables = region_tables(self.regions, config.tile_size, versioned=self.versioned)
        table = tables.tiles if cut else tables.segments
        return tables.windows, len(tables.segments), len(tables.tiles), table, tables.order

    def _constants(self, config: KernelConfig, query: bool, *rows: Tensor) -> dict[str, object]:
        far = any(x.shape[2] * x.stride(2) >= 2**31 for x in rows)
        ordered = self.regions is not None
        constants = kernel_constants(
            config, self.d, self.dv, self.dtype, self.family, ordered=ordered, query=query, far=far
        )
        return constants | config.options()


def kernel_constants(
    config: KernelConfig,
    d: int,
    dv: int,
    dtype: torch.dtype,
    family: str,
    *,
    ordered: bool,
    query: bool,
    far: bool = False,
) -> dict[str, object]:
    """What the compiler knows of a call, see :mod:`triton_kernels`; ``far``: a row may start beyond 2^31."""
    import triton.language as tl

    bfloat16 = dtype == torch.bfloat16
    if bfloat16 and interpreted():  # the interpreter cannot multiply bfloat16
        operand, precision = tl.float32, "bf16"
    elif bfloat16:
        operand, precision = tl.bfloat16, "ieee"
    else:  # float16 lacks the range for gradients of moments; AMD lacks tf32x3
        operand, precision = tl.float32, "ieee" if family.startswith("gfx") else "tf32x3"
    return {
        **{"d": d, "dv": dv, "D": padded(d), "C": padded(dv), "BN": config.tile_size},
        **{"ORDERED": ordered, "QUERY": query, "INDEX": tl.int64 if far else tl.int32},
        **{"OP": operand, "PRECISION": precision},
    }


def _outer(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in (x.stride(0), x.stride(1))]
