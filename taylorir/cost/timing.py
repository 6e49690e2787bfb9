"""How a time is taken: in turns, after a warm-up, synchronised, with quantiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: median and the 20% and 80% quantiles of ``repeats`` calls.

    ``cpu_ms`` is the median of the time that all threads spent on the processor. On a machine that others use
    too it is the steadier of the two; on a GPU it says nothing.
    """

    latency_ms: float
    latency_ms_p20: float
    latency_ms_p80: float
    cpu_ms: float
    repeats: int


def time_calls(
    builds: Sequence[Callable[[], Callable[[], object]]],
    *,
    device: str | torch.device = "cpu",
    seconds: float = 2.0,
    min_repeats: int = 3,
    max_repeats: int = 100,
    longest: float = 60.0,
) -> list[Timing | None]:
    """Time calls against each other, in turns, so that what else the machine does falls on each alike.

    Each warms up once (three times on a GPU), then every round runs each once, until the time is used up.

    Args:
        builds: functions that make the inputs and return the call to time.
        device: where they run; a CUDA device is synchronised before and after every call.
        seconds: time to spend on the repeats of a call, which ``min_repeats`` may exceed.
        min_repeats, max_repeats: bounds on the number of repeats.
        longest: a call whose warm-up takes more seconds than this is not run again: the warm-up is its time.

    Returns:
        A timing each; None where memory ran out.

    Raises:
        ValueError: bounds that leave no repeat.
    """
    if not 1 <= min_repeats <= max_repeats:
        raise ValueError(
            f"repeats: got {min_repeats} to {max_repeats}, expected 1 <= min_repeats <= max_repeats"
        )
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing
    warm_ups = 1 if synchronize is _nothing else 3
    taken: list[list[tuple[float, float]]] = [[] for _ in builds]
    calls: dict[int, Callable[[], object]] = {}
    for i, build in enumerate(builds):
        try:
            call = build()
            first = [_milliseconds(call, synchronize) for _ in range(warm_ups)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        if first[-1][0] > longest * 1e3:
            taken[i] = first[-1:]
        else:
            calls[i] = call
    rounds, end = 0, time.perf_counter() + seconds * len(calls)
    while calls and (rounds < min_repeats or (time.perf_counter() < end and rounds < max_repeats)):
        for i, call in calls.items():
            taken[i].append(_milliseconds(call, synchronize))
        rounds += 1
    return [_timing(times) if times else None for times in taken]


def _milliseconds(call: Callable[[], object], synchronize: Callable[[], None]) -> tuple[float, float]:
    """Of one call, on the clock and of the processor."""
    synchronize()
    start, began = time.perf_counter(), time.process_time()
    call()
    synchronize()
    return (time.perf_counter() - start) * 1e3, (time.process_time() - began) * 1e3


def _timing(times: list[tuple[float, float]]) -> Timing:
    taken, worked = zip(*times, strict=True)
    median, low, high = np.quantile(taken, [0.5, 0.2, 0.8])
    return Timing(float(median), float(low), float(high), float(np.median(worked)), len(times))


def _nothing() -> None:
    return None


def machine_load() -> dict[str, object]:
    """What else the machine did: ``load``, the processes that wanted to run in the last minute, and
    ``priority``: "real-time" where this process ran before all of them (``chrt -f``), else "normal"."""
    real_time = hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
    return {"load": os.getloadavg()[0], "priority": "real-time" if real_time else "normal"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in PyTorch's CPU allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("not enough memory", "can't allocate memory"))
    )
