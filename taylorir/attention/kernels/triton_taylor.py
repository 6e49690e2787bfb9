"""The efficient form on a GPU: :mod:`triton_kernels` as PyTorch operators with gradients.

``taylorir::taylor_forward`` and ``taylorir::taylor_backward`` are opaque to ``torch.compile``: one node each,
whose fake versions know the shapes. Saved for backward: q, k, v, den [B, H, N] and the moments.

Shape legend
    B windows of all images, H heads, N tokens, d width of q and k, d_v width of v and y
    D, C d and d_v padded to 16, 32 or 64 inside the kernels; ``high`` and ``low`` are the moments
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import NamedTuple

import torch
from torch import Tensor

from taylorir.attention.kernels.checks import check_qkv, check_regions, check_temperature
from taylorir.attention.kernels.triton_regions import segments_of

MAX_HEAD_DIM = 64
_ENOUGH_PROGRAMS = 512  # below this many, the tokens of a segment are split over programs


class Launch(NamedTuple):
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


# By the padded width max(D, C). Chosen from the registers, spills and instructions that the compiler reports
# for sm_90 (python -m taylorir.cost.triton_report); gpu_benchmark --tune measures others on a GPU.
CONFIGS: dict[int, dict[str, Launch]] = {
    16: {
        "moments": Launch(64, 4, 3, 128),
        "readout": Launch(128, 4, 2, 128),
        "pullback": Launch(64, 4, 2, 128),
    },
    32: {
        "moments": Launch(32, 4, 3, 128),
        "readout": Launch(128, 8, 2, 128),
        "pullback": Launch(128, 8, 2, 128),
    },
    64: {"moments": Launch(32, 8, 2), "readout": Launch(64, 8, 2), "pullback": Launch(64, 4, 2)},
}
CONFIGS_FLOAT32: dict[int, dict[str, Launch]] = {
    16: {"moments": Launch(32, 4, 2), "readout": Launch(64, 4, 2), "pullback": Launch(64, 4, 2)},
    32: {"moments": Launch(32, 4, 2), "readout": Launch(64, 4, 2), "pullback": Launch(64, 4, 2)},
    64: {"moments": Launch(32, 8, 1), "readout": Launch(64, 8, 1), "pullback": Launch(64, 8, 2)},
}


# How float32 operands are multiplied; bfloat16 ones have one way.
PRECISIONS = {torch.bfloat16: "ieee", torch.float16: "tf32x3", torch.float32: "tf32x3"}


def is_available() -> bool:
    """Whether the kernels can run: Triton is installed, and there is a CUDA device or Triton interprets."""
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.is_available() or _interpreted()


def supports(q: Tensor, v: Tensor | None = None) -> bool:
    """Whether the kernels take tensors of this dtype and width, on this device."""
    widths = [x.shape[-1] for x in (q, v) if x is not None]
    return q.dtype in PRECISIONS and max(widths) <= MAX_HEAD_DIM and (q.is_cuda or _interpreted())


def taylor_efficient_triton(
    q: Tensor, k: Tensor, v: Tensor, temperature: float | Tensor = 1.0, regions: Tensor | None = None
) -> Tensor:
    """TaylorShift attention, efficient form, in fused kernels (:eq:`eq-efficient`).

    Args:
        q, k: [..., H, N, d] in bfloat16, float16 or float32, d at most 64; normalised inside. Any strides.
        v: [..., H, N, d_v], d_v at most 64.
        temperature: a float or a tensor [H].
        regions: integer labels, broadcast to [..., N]; tokens attend within equal labels only.

    Returns:
        [..., H, N, d_v] in the dtype of q, not scaled by sqrt(N / d). Sums are taken in float32.

    Raises:
        TypeError: a dtype other than the three.
        ValueError: d or d_v above 64, a device that the kernels do not run on, or shapes that do not fit.
    """
    q, k, v = check_qkv(q, k, v)
    regions = check_regions(regions, q)
    if q.dtype not in PRECISIONS:
        raise TypeError(f"q must be bfloat16, float16 or float32 for the triton backend, got {q.dtype}")
    for name, x in (("q", q), ("v", v)):
        if x.shape[-1] > MAX_HEAD_DIM:
            raise ValueError(
                f"{name} must be at most {MAX_HEAD_DIM} wide for the triton backend, got {list(x.shape)}"
            )
    if not (q.is_cuda or _interpreted()):
        raise ValueError(
            f"q must be on a CUDA device for the triton backend, got {q.device} "
            "(or set TRITON_INTERPRET=1 before Python starts, to run the kernels slowly on the CPU)"
        )
    tau = check_temperature(temperature, q, torch.float32)
    batch, (heads, tokens, _) = q.shape[:-3], q.shape[-3:]
    q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    if q.shape[0] == 0:
        return q.new_zeros(*batch, heads, tokens, v.shape[-1])
    y = taylor_forward(q, k, v, tau.contiguous(), regions)[0]
    return y.reshape(*batch, *y.shape[-3:])


@torch.library.custom_op("taylorir::taylor_forward", mutates_args=())
def taylor_forward(
    q: Tensor, k: Tensor, v: Tensor, tau: Tensor, regions: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y [B, H, N, d_v], den [B, H, N] and the moments (K1), (K2); q, k, v [B, H, N, ...], tau [H]."""
    launch = _Launch(q, v, regions)
    q, k, v = map(_rows_dense, (q, k, v))
    y = _output_like(q, v.shape[-1])
    den = q.new_empty(q.shape[:-1], dtype=torch.float32)
    with launch.device():
        high, low = launch.moments(k, v, den, den, tau, query=False)
        launch.readout(q, tau, high, low, y, den, query=True)
    return y, den, high, low


@torch.library.custom_op("taylorir::taylor_backward", mutates_args=())
def taylor_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor,
    regions: Tensor | None,
    den: Tensor,
    high: Tensor,
    low: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and dtau [H] (K3) to (K7)."""
    launch = _Launch(q, v, regions)
    dy, q, k, v = map(_rows_dense, (dy, q, k, v))
    dq, dk, dv = _output_like(q, q.shape[-1]), _output_like(k, k.shape[-1]), _output_like(v, v.shape[-1])
    h = torch.empty_like(den)
    with launch.device():
        dtau = launch.pullback(q, dy, den, h, tau, high, low, dq, query=True)
        dual_high, dual_low = launch.moments(q, dy, den, h, tau, query=True)
        launch.readout(k, tau, dual_high, dual_low, dv, den, query=False)
        launch.pullback(k, v, den, h, tau, dual_high, dual_low, dk, query=False)
    return dq, dk, dv, dtau


@taylor_forward.register_fake
def _(q, k, v, tau, regions):
    y = _output_like(_rows_dense(q), v.shape[-1])
    den = q.new_empty(q.shape[:-1], dtype=torch.float32)
    if regions is None:
        states = q.shape[0]
    else:
        states = torch.library.get_ctx().new_dynamic_size()
    D, C = padded(q.shape[-1]), padded(v.shape[-1])
    high = q.new_empty((states, q.shape[1], D * D * C), dtype=torch.float32)
    low = q.new_empty((states, q.shape[1], D * (C + D) + D + C), dtype=torch.float32)
    return y, den, high, low


@taylor_backward.register_fake
def _(dy, q, k, v, tau, regions, den, high, low):
    dq, dk, dv = (_output_like(_rows_dense(x), x.shape[-1]) for x in (q, k, v))
    return dq, dk, dv, torch.empty_like(tau)


def _save_for_backward(ctx, inputs, output):
    q, k, v, tau, regions = inputs
    ctx.save_for_backward(q, k, v, tau, regions, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, *_):
    if dy is None:
        return None, None, None, None, None
    return *taylor_backward(dy, *ctx.saved_tensors), None


taylor_forward.register_autograd(_backward, setup_context=_save_for_backward)


class _Launch:
    """The shapes of one call, and the three kernels on them."""

    def __init__(self, q: Tensor, v: Tensor, regions: Tensor | None):
        from taylorir.attention.kernels import triton_kernels

        self.kernels = triton_kernels
        self.place = q.device
        self.B, self.H, self.N, self.d = q.shape
        self.dv = v.shape[-1]
        self.D, self.C = padded(self.d), padded(self.dv)
        self.bfloat16 = q.dtype == torch.bfloat16
        self.configs = (CONFIGS if self.bfloat16 else CONFIGS_FLOAT32)[max(self.D, self.C)]
        self.precision = "bf16" if self.bfloat16 and _interpreted() else PRECISIONS[q.dtype]
        self.regions = regions

    def device(self):
        return torch.cuda.device(self.place) if self.place.type == "cuda" else contextlib.nullcontext()

    def moments(self, x, z, den, h, tau, *, query: bool) -> tuple[Tensor, Tensor]:
        """high and low of (k, v), or with ``query`` the dual ones of (q, dy / den)."""
        config, D, C = self.configs["moments"], self.D, self.C
        windows, segments, _, table, order = self._tables(config)
        jobs = D // 16 * (D // 16 + 1) // 2 + 1
        states = self.B // windows * segments
        programs = states * self.H * jobs
        splits = max(1, min(_ENOUGH_PROGRAMS // programs, self.N // (4 * config.tile_size)))
        high = x.new_empty((states, splits, self.H, D * D * C), dtype=torch.float32)
        low = x.new_empty((states, splits, self.H, D * (C + D) + D + C), dtype=torch.float32)
        self.kernels.moments_kernel[(programs * splits,)](
            x, z, den, h, tau, table, order, high, low,
            *_outer(x, z), self.N, self.H, windows, segments,
            x_sn=x.stride(2), z_sn=z.stride(2), SPLITS=splits, **self._flags(config, query),
        )  # fmt: skip
        if splits == 1:
            return high[:, 0], low[:, 0]
        return high.sum(1), low.sum(1)

    def readout(self, x, tau, high, low, out, den, *, query: bool) -> None:
        """y and den into ``out`` and ``den``, or without ``query`` dv into ``out``."""
        config = self.configs["readout"]
        windows, segments, tiles, table, order = self._tables(config, cut=True)
        self.kernels.readout_kernel[(self.B // windows * tiles * self.H,)](
            x, tau, table, order, high, low, out, den,
            *_outer(x, out), self.N, self.H, windows, segments, tiles,
            x_sn=x.stride(2), out_sn=out.stride(2), **self._flags(config, query),
        )  # fmt: skip

    def pullback(self, x, z, den, h, tau, high, low, dx, *, query: bool) -> Tensor:
        """dq into ``dx`` and (K3) into ``h`` (returns dtau [H]), or without ``query`` dk into ``dx``."""
        config = self.configs["pullback"]
        windows, segments, tiles, table, order = self._tables(config, cut=True)
        dtau = tau.new_empty((self.B // windows * tiles if query else 1, self.H))
        self.kernels.pullback_kernel[(self.B // windows * tiles * self.H,)](
            x, z, den, h, tau, table, order, high, low, dx, dtau,
            *_outer(x, z, dx), self.N, self.H, windows, segments, tiles,
            x_sn=x.stride(2), z_sn=z.stride(2), dx_sn=dx.stride(2),
            **self._flags(config, query),
        )  # fmt: skip
        return dtau.sum(0)

    def _tables(
        self, config: Launch, cut: bool = False
    ) -> tuple[int, int, int, Tensor | None, Tensor | None]:
        """Windows, segments, tiles of a repetition; the table of segments (``cut``: tiles); the order."""
        if self.regions is None:
            return 1, 1, -(-self.N // config.tile_size), None, None
        found = segments_of(self.regions, config.tile_size)
        table = found.tiles if cut else found.segments
        return found.windows, len(found.segments), len(found.tiles), table, found.order

    def _flags(self, config: Launch, query: bool) -> dict:
        import triton.language as tl

        # float16 lacks the range for gradients of moments; the interpreter cannot multiply bfloat16
        operand = tl.bfloat16 if self.bfloat16 and not _interpreted() else tl.float32
        shape = {"d": self.d, "dv": self.dv, "D": self.D, "C": self.C, "BN": config.tile_size}
        kind = {
            "ORDERED": self.regions is not None,
            "QUERY": query,
            "OP": operand,
            "PRECISION": self.precision,
        }
        return {**shape, **kind, **config.options()}


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def padded(width: int) -> int:
    """The width that the kernels pad d or d_v to."""
    return max(16, 1 << (width - 1).bit_length())


def _outer(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in (x.stride(0), x.stride(1))]


def _rows_dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _output_like(x: Tensor, width: int) -> Tensor:
    """Empty [B, H, N, width], heads of a token side by side where x has them so (a view of projections)."""
    B, H, N, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty((B, N, H, width)).transpose(1, 2)
    return x.new_empty((B, H, N, width))
