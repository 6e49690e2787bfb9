"""The GPU kernels against the flash backend of SDPA on a CUDA device: time, peak memory, error; a row each.

    python -m taylorir.cost.gpu_attention --out data/results          # writes gpu_attention.csv
    python -m taylorir.cost.gpu_attention --out data/results --tune   # gpu_tuning.csv, then with its best

Contenders take turns, call by call, each between two CUDA events after the L2 cache was overwritten (which
also keeps the queue filled, so that launches do not count). A row gives the median and the 20% and 80%
quantiles. Peak memory is what a call allocates beyond its inputs and dy, its results included. The error is
that of two windows against the direct form in float64. Out of memory is a result (``status``); any other
exception propagates.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from taylorir.attention import taylor_direct
from taylorir.attention.kernels import triton_operator
from taylorir.attention.kernels.triton_launch import KernelCalls, KernelConfig, padded
from taylorir.attention.kernels.triton_operator import taylor_efficient_triton
from taylorir.rows import provenance, write_rows

_OVERWRITTEN = 1 << 30  # bytes: many times the cache, and a quarter of a millisecond
MODES = ("forward", "forward+backward")
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Case:
    """Windows of side x side tokens with ``num_heads`` heads of width ``head_dim``."""

    head_dim: int
    windows: int = 64
    num_heads: int = 6
    side: int = 48
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0

    @property
    def num_tokens(self) -> int:
        return self.side**2

    def inputs(self, device: str = "cuda") -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, which need gradients, and dy: [windows, num_heads, num_tokens, head_dim]."""
        generator = torch.Generator(device).manual_seed(self.seed)
        shape = (self.windows, self.num_heads, self.num_tokens, self.head_dim)
        q, k, v, dy = (torch.randn(shape, generator=generator, device=device) for _ in range(4))
        return *(x.to(self.dtype).requires_grad_() for x in (q, k, v)), dy.to(self.dtype)

    def regions(self, device: str = "cuda") -> Tensor:
        """Labels [windows, num_tokens] of an image in a row-major grid of windows, shifted by half a window.

        Only the last window of a row or column of the grid holds what was rolled over the edge, so has parts.
        """
        columns = max(round(self.windows**0.5), 1)
        window = torch.arange(self.windows, device=device)
        late = torch.arange(self.side, device=device) >= self.side // 2
        last_row = (window // columns == (self.windows - 1) // columns)[:, None, None]
        last_column = (window % columns == columns - 1)[:, None, None]
        return (2 * (last_row & late[:, None]) + (last_column & late[None, :])).flatten(1)


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SDPA, held to its flash backend (which pads the width itself)."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(q, k, v)


def contenders(case: Case) -> dict[str, Attention]:
    """Flash first: the others are compared with it. ``taylor regions`` does more: flash takes no mask."""
    regions = case.regions()
    return {
        "flash": flash,
        "taylor": taylor_efficient_triton,
        "taylor regions": lambda q, k, v: taylor_efficient_triton(q, k, v, regions=regions),
    }


def call(attend: Attention, inputs: tuple[Tensor, ...], mode: str) -> tuple[Tensor, ...]:
    """y, or y and the gradients of q, k, v."""
    q, k, v, dy = inputs
    if mode == "forward":
        with torch.no_grad():
            return (attend(q, k, v),)
    y = attend(q, k, v)
    return y.detach(), *torch.autograd.grad(y, (q, k, v), dy)


def milliseconds(run: Callable[[], object]) -> float:
    """Time of one call on the device, with a cold L2 cache."""
    torch.empty(_OVERWRITTEN, dtype=torch.uint8, device="cuda").zero_()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def peak_mib(run: Callable[[], object]) -> float:
    """The most memory allocated during a call, beyond what was there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def relative_errors(case: Case) -> dict[str, float]:
    """Largest error among y, dq, dk, dv of two windows of the kernels against the direct form in float64."""
    small = dataclasses.replace(case, windows=2, seed=case.seed + 1)
    inputs = small.inputs()
    exact = tuple(x.detach().double().requires_grad_(x.requires_grad) for x in inputs)
    regions = small.regions()
    errors = {}
    for name, labels in (("taylor", None), ("taylor regions", regions)):
        mask = None if labels is None else labels[:, None, :, None] == labels[:, None, None, :]
        actual = call(lambda q, k, v, r=labels: taylor_efficient_triton(q, k, v, regions=r), inputs, MODES[1])
        expected = call(lambda q, k, v, m=mask: taylor_direct(q, k, v, mask=m), exact, MODES[1])
        pairs = zip(actual, expected, strict=True)
        parts = torch.stack([(a.double() - b).norm() / b.norm() for a, b in pairs])
        errors[name] = float(parts.max())  # NaN stays NaN
    return errors


def benchmark(case: Case, mode: str, repeats: int = 50, warmups: int = 10) -> list[dict[str, object]]:
    """Rows of all contenders, taking turns."""
    inputs = case.inputs()
    errors = relative_errors(case)
    times: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    running = dict(contenders(case))
    for name, attend in list(running.items()):
        try:
            for _ in range(warmups):
                call(attend, inputs, mode)
            peaks[name] = peak_mib(lambda a=attend: call(a, inputs, mode))
            times[name] = []
        except torch.cuda.OutOfMemoryError:
            del running[name]
    for _ in range(repeats):
        for name, attend in running.items():
            times[name].append(milliseconds(lambda a=attend: call(a, inputs, mode)))
    rows = []
    for name in contenders(case):
        spread = pd.Series(times.get(name, []), dtype=float).quantile([0.5, 0.2, 0.8]).tolist()
        rows.append(
            {
                "attention": name,
                "mode": mode,
                "windows": case.windows,
                "num_heads": case.num_heads,
                "num_tokens": case.num_tokens,
                "head_dim": case.head_dim,
                "status": "ok" if name in times else "out of memory",
                **dict(zip(("latency_ms", "latency_ms_p20", "latency_ms_p80"), spread, strict=True)),
                "repeats": repeats,
                "peak_mib": peaks.get(name),
                "relative_error": errors.get(name),
                **provenance(device="cuda", dtype=case.dtype, seed=case.seed),
            }
        )
    for row in rows:
        row["speedup"] = rows[0]["latency_ms"] / row["latency_ms"]
        row["memory_ratio"] = None if row["peak_mib"] is None else row["peak_mib"] / (peaks.get("flash") or 1)
    return rows


def candidates(kernel: str, width: int, present: KernelConfig) -> Iterator[KernelConfig]:
    """Ways to launch that are worth a measurement; the present one first."""
    yield present
    tiles = {"moments": ((32, 4), (64, 4), (64, 8)), "readout": ((64, 4), (128, 4), (128, 8), (256, 8))}
    for tile_size, num_warps in tiles.get(kernel, ((64, 4), (128, 4), (128, 8))):
        for num_stages in (2, 3) if kernel == "moments" else (1, 2):
            for maxnreg in (None, 128 if num_warps == 8 or width < 64 else 168):
                yield KernelConfig(tile_size, num_warps, num_stages, maxnreg)


def tune(case: Case, repeats: int = 15) -> list[dict[str, object]]:
    """Time each kernel alone under each candidate, and make the fastest the one that is used from here on."""
    from triton.runtime.errors import OutOfResources, PTXASError

    q, k, v, dy = (x.detach() for x in case.inputs())
    tau = torch.ones(case.num_heads, device=q.device)
    _, den, high, low = triton_operator.taylor_forward(q, k, v, tau, None, True)
    width, out, h = padded(case.head_dim), torch.empty_like(q), torch.zeros_like(den)
    calls = KernelCalls(q, k, v, None, True)
    runs = {
        "moments": lambda: calls.moments(q, dy, den, h, tau, query=True),
        "readout": lambda: calls.readout(q, tau, high, low, out, den, query=True),
        "pullback": lambda: calls.pullback(q, dy, den, h, tau, high, low, out, query=True),
    }
    rows = []
    for kernel, run in runs.items():
        for config in dict.fromkeys(candidates(kernel, width, calls.configs[kernel])):
            calls.configs[kernel] = config  # in CONFIGS
            latency = math.inf
            with contextlib.suppress(OutOfResources, PTXASError):  # does not fit: infinitely slow
                for _ in range(3):
                    run()
                latency = float(pd.Series([milliseconds(run) for _ in range(repeats)]).median())
            rows.append(
                {"kernel": kernel, "head_dim": case.head_dim, **config._asdict(), "latency_ms": latency}
            )
            rows[-1] |= provenance(device="cuda", dtype=case.dtype, seed=case.seed)
        best = min((row for row in rows if row["kernel"] == kernel), key=lambda row: row["latency_ms"])
        calls.configs[kernel] = KernelConfig(*(best[field] for field in KernelConfig._fields))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/results"), help="folder for the CSV files")
    parser.add_argument("--head-dim", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument(
        "--tune", action="store_true", help="measure launch configurations first, use the best"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    arguments.out.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200, "display.max_columns", 40, "display.max_rows", 200)
    cases = [Case(head_dim, windows=arguments.windows) for head_dim in arguments.head_dim]
    if arguments.tune:
        tuning = pd.DataFrame([row for case in cases for row in tune(case)])
        write_rows(arguments.out / "gpu_tuning.csv", tuning)
        shown = (
            tuning.sort_values(["head_dim", "kernel", "latency_ms"]).groupby(["head_dim", "kernel"]).head(4)
        )
        print(shown.iloc[:, :7].to_string(index=False))
    rows = [row for case in cases for mode in MODES for row in benchmark(case, mode, arguments.repeats)]
    frame = pd.DataFrame(rows)
    write_rows(arguments.out / "gpu_attention.csv", frame)
    columns = ["attention", "mode", "head_dim", "latency_ms", "speedup"]
    columns += ["peak_mib", "memory_ratio", "relative_error"]
    print(frame[columns].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
