"""The accounting beside real runs of the same step, each in a fresh process.

Two things are measured: the bytes of the tensors that live at once, which is what the accounting predicts,
and what PyTorch's allocator hands out, which has on top what an operator takes for itself while it runs (the
scratch memory of the CPU's fused attention, a repacked weight) and, on a GPU, what is rounded up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd
import psutil
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from taylorir.cost.allocations import record
from taylorir.cost.memory import NETWORK_METHODS, MemoryPoint, account, build
from taylorir.cost.timing import is_out_of_memory
from taylorir.networks import kept_apart
from taylorir.rows import provenance


@dataclass(frozen=True)
class RealPeak:
    """Peak bytes of a real step, with parameters, buffers, inputs and the state of Adam.

    Attributes:
        tensors: of the storages that live at once.
        allocator: of what the allocator hands out: on a CPU as PyTorch's profiler reports it, operator by
            operator; on a GPU ``max_memory_allocated``.
    """

    tensors: int
    allocator: int


def real_peak(point: MemoryPoint, device: str = "cpu") -> RealPeak:
    """Run a point in this process, on real tensors, and measure it."""
    model = build(point).to(device)
    train = point.mode == "train"
    lr = torch.rand(point.batch, 3, point.lr_size, point.lr_size, device=device)
    hr = torch.rand(point.batch, 3, *2 * (point.upscale * point.lr_size,), device=device)
    model.train(train)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-4, foreach=True)

    def step() -> None:
        with kept_apart():  # else the geometry of the step before is there already, and not counted
            if not train:
                with torch.no_grad():
                    model(lr)
                return
            l1_loss(model(lr), hr).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    step()  # makes the state of the optimiser
    held = [lr, *model.parameters(), *model.buffers()]
    if train:
        held += [hr, *(x for s in optimiser.state.values() for x in s.values() if x.ndim)]
    before = sum(x.numel() * x.element_size() for x in held)
    tensors = before + _recorded(step, held)
    if torch.device(device).type == "cuda":
        return RealPeak(tensors, _on_cuda(step, device))
    return RealPeak(tensors, before + _profiled(step))


def _recorded(step: Callable[[], None], known: list[Tensor]) -> int:
    """The most bytes of new tensors that lived at once while a function ran."""
    with record(known) as trace:
        step()
        return int(trace.events().delta.cumsum().max(initial=0))


def _on_cuda(step: Callable[[], None], device: str) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device)


def _profiled(step: Callable[[], None]) -> int:
    """The most bytes that were allocated at once while a function ran, by the CPU allocator's own reports."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def in_fresh_process(
    point: MemoryPoint, device: str = "cpu", *, limit_gib: float | None = None
) -> RealPeak | None:
    """``real_peak`` in a process of its own; None if it ran out of memory.

    Args:
        point: what to run.
        device: where.
        limit_gib: address space that the process may take, on a CPU, so that running out is an answer and no
            accident.

    Raises:
        RuntimeError: the process failed for any other reason; its message is passed on.
    """
    request = json.dumps({"point": asdict(point), "device": device, "limit_gib": limit_gib})
    done = subprocess.run(
        [sys.executable, "-m", "taylorir.cost.memory_real", request], capture_output=True, text=True
    )
    if done.returncode == OUT_OF_MEMORY:
        return None
    if done.returncode:
        raise RuntimeError(f"measuring {point} failed: {done.stderr.strip()}")
    return RealPeak(**json.loads(done.stdout.strip().splitlines()[-1]))


OUT_OF_MEMORY = 77
"""Exit code of a measuring process that ran out of memory."""

VALIDATION_POINTS = [
    MemoryPoint(model, method, checkpoint, window, size, 2, mode)
    for model, window, size in (("S", 8, 24), ("S", 16, 32))
    for mode in ("train", "infer")
    for method in NETWORK_METHODS
    for checkpoint in (False, True)
    if mode == "train" or not checkpoint
]
"""Points small enough to be run on a laptop."""


LARGE_POINTS = [
    MemoryPoint("S", method, False, window, 192, 2, "infer")
    for window in (96, 192)
    for method in ("taylor_efficient", "softmax_naive")
]
"""Windows that the paper does not try: 96 x 96, and 192 x 192 that covers the image."""


def validation_rows(
    device: str = "cpu", points: list[MemoryPoint] | None = None, *, limit_gib: float | None = None
) -> pd.DataFrame:
    """Accounted and real peaks: one row a point.

    ``difference`` is by how much what was accounted for exceeds the real tensors, as a fraction of these;
    ``allocator_difference`` by how much it exceeds what the allocator handed out.

    Args:
        device: where to run.
        points: what to run; default ``VALIDATION_POINTS``.
        limit_gib: address space of each process, on a CPU; running out is a result.
    """
    cuda = torch.device(device).type == "cuda"
    rows = []
    for point in VALIDATION_POINTS if points is None else points:
        accounted = account(point, cuda_kernels=cuda).total
        real = in_fresh_process(point, device, limit_gib=limit_gib)
        row = {**asdict(point), "accounted_bytes": accounted, "status": "out of memory"}
        if real is not None:
            row |= {
                "real_bytes": real.tensors,
                "difference": accounted / real.tensors - 1,
                "allocator_bytes": real.allocator,
                "allocator_difference": accounted / real.allocator - 1,
                "status": "ok",
            }
        rows.append(row | {"limit_gib": limit_gib} | provenance(device=device, seed=0))
    return pd.DataFrame(rows)


def _main(request: str) -> int:
    wanted = json.loads(request)
    if wanted["limit_gib"] is not None:
        most = int(wanted["limit_gib"] * 2**30)
        psutil.Process().rlimit(psutil.RLIMIT_AS, (most, most))
    torch.manual_seed(0)
    try:
        print(json.dumps(asdict(real_peak(MemoryPoint(**wanted["point"]), wanted["device"]))))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
