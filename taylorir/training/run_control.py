"""What surrounds a training loop: processes, exactness, signals and clocks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: 0 for the first, which alone writes and prints.
        count: how many there are.
        device: the device of this one.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process; all must ask at the same time."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return bool(flags.item())


@contextlib.contextmanager
def join_processes(device: str | torch.device) -> Iterator[Processes]:
    """Join the process group that torchrun describes, or be the only process.

    Args:
        device: "auto" takes CUDA where there is one; a CUDA device without a number gets the local rank.

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {str(device)!r}")
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device} was asked for, but PyTorch sees no CUDA device")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    owner = not torch.distributed.is_initialized()
    if owner:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), count, device)
    finally:
        if owner:
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def exactness(deterministic: bool, tf32: bool, device: torch.device) -> Iterator[None]:
    """Set PyTorch's switches for determinism and TensorFloat-32, and put them back afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        if device.type == "cuda":
            torch.set_float32_matmul_precision(before[1])
            torch.backends.cudnn.allow_tf32 = convolutions


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the list that this gives; a second one interrupts at once.

    Outside the main thread, where Python delivers no signals, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_by(number: int) -> None:
    """End as the signal would have.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for SIGTERM, with the shell's status, 143.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


class Watch:
    """Wall clock and CPU time of training alone, and the share of a step that makes its batch.

    Attributes:
        data_share: 0..1, of the last step that was marked; 0 before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: dict[str, float] = {}
        self._total = [0.0, 0.0]
        self._begin: tuple[float, float] | None = None
        self.data_share = 0.0
        self.resume()

    def mark(self, name: str) -> None:
        """Note the time of "begin", "data" and "end" of a step, after what is under way on the device."""
        self._synchronise()
        self._marks[name] = time.perf_counter()
        if name == "end":
            made, whole = (
                self._marks["data"] - self._marks["begin"],
                self._marks["end"] - self._marks["begin"],
            )
            self.data_share = made / whole

    def pause(self) -> None:
        """Stop counting until :meth:`resume`."""
        if self._begin is not None:
            self._synchronise()
            self._total[0] += time.perf_counter() - self._begin[0]
            self._total[1] += time.process_time() - self._begin[1]
            self._begin = None

    def resume(self) -> None:
        """Go on counting."""
        if self._begin is None:
            self._begin = (time.perf_counter(), time.process_time())

    def lap(self) -> tuple[float, float]:
        """Pause; wall-clock and CPU seconds since the lap before."""
        self.pause()
        seconds, cpu_seconds = self._total
        self._total = [0.0, 0.0]
        return seconds, cpu_seconds

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def gpu_utilisation(device: torch.device) -> float:
    """Percent of the last second in which a kernel ran; NaN without CUDA or without NVIDIA's library."""
    if device.type != "cuda":
        return float("nan")
    try:
        return float(torch.cuda.utilization(device))
    except (ModuleNotFoundError, RuntimeError):
        return float("nan")
