"""The accounting beside real runs: what PyTorch's allocators report for the same step, each in a fresh
process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict

import pandas as pd
import torch
from torch.nn.functional import l1_loss

from taylorir.memory import METHODS, Point, account, build
from taylorir.provenance import provenance


def real_peak(point: Point, device: str = "cpu") -> int:
    """Peak bytes of a point from a run of this process, on real tensors.

    On a CPU it is the sum of what PyTorch's allocator hands out, operator by operator, as its profiler
    reports it; on a GPU ``max_memory_allocated``. Parameters, buffers, inputs and the state of Adam are
    counted on both.
    """
    model = build(point).to(device)
    train = point.mode == "train"
    lr = torch.rand(point.batch, 3, point.lr_size, point.lr_size, device=device)
    hr = torch.rand(point.batch, 3, *2 * (point.upscale * point.lr_size,), device=device)
    model.train(train)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-4, foreach=True)

    def step() -> None:
        if not train:
            with torch.no_grad():
                model(lr)
            return
        optimiser.zero_grad(set_to_none=True)
        l1_loss(model(lr), hr).backward()
        optimiser.step()

    step()  # makes the state of the optimiser and what is kept from step to step
    optimiser.zero_grad(set_to_none=True)
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    held = [lr, *model.parameters(), *model.buffers()]
    if train:
        held += [hr, *(x for s in optimiser.state.values() for x in s.values() if x.ndim)]
    return sum(x.numel() * x.element_size() for x in held) + _profiled(step)


def _profiled(step) -> int:
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


def in_fresh_process(point: Point, device: str = "cpu", *, limit_gib: float | None = None) -> int | None:
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
        [sys.executable, "-m", "taylorir.memory_real", request], capture_output=True, text=True
    )
    if done.returncode == OUT_OF_MEMORY:
        return None
    if done.returncode:
        raise RuntimeError(f"measuring {point} failed: {done.stderr.strip()}")
    return int(done.stdout.strip().splitlines()[-1])


OUT_OF_MEMORY = 77
"""Exit code of a measuring process that ran out of memory."""

VALIDATION = [
    Point(model, method, checkpoint, window, size, 2, mode)
    for model, window, size in (("S", 8, 48), ("S", 24, 48))
    for mode in ("train", "infer")
    for method in METHODS
    for checkpoint in (False, True)
    if mode == "train" or not checkpoint
]
"""Points small enough to be run on a laptop."""


LARGE = [
    Point("S", method, False, window, 192, 2, "infer")
    for window in (96, 192)
    for method in ("taylor_efficient", "softmax_naive")
]
"""Windows that the paper does not try: 96 x 96, and 192 x 192 that covers the image."""


def validation_rows(
    device: str = "cpu", points: list[Point] | None = None, *, limit_gib: float | None = None
) -> pd.DataFrame:
    """Accounted and real peaks, and the difference as a fraction of the real one: one row a point.

    Args:
        device: where to run.
        points: what to run; default ``VALIDATION``.
        limit_gib: address space of each process, on a CPU; running out is a result.
    """
    cuda = torch.device(device).type == "cuda"
    rows = []
    for point in VALIDATION if points is None else points:
        accounted = account(point, cuda_kernels=cuda).total
        real = in_fresh_process(point, device, limit_gib=limit_gib)
        row = {**asdict(point), "accounted_bytes": accounted, "real_bytes": real}
        row["difference"] = accounted / real - 1 if real else float("nan")
        rows.append(
            row
            | {"status": "ok" if real else "out of memory", "limit_gib": limit_gib}
            | provenance(device=device, seed=0)
        )
    return pd.DataFrame(rows)


def _main(request: str) -> int:
    from taylorir.benchmark import is_out_of_memory

    wanted = json.loads(request)
    if wanted["limit_gib"] is not None:
        most = int(wanted["limit_gib"] * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    torch.manual_seed(0)
    try:
        print(real_peak(Point(**wanted["point"]), wanted["device"]))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
