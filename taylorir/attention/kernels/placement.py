"""Where attention runs, and where it is to be taken to run by those who account for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_as_gpu: ContextVar[bool] = ContextVar("_as_gpu", default=False)


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Within the block a CPU is worked with as a GPU is, for those who account for what is done there."""
    token = _as_gpu.set(True)
    try:
        yield
    finally:
        _as_gpu.reset(token)


def on_cpu(x: Tensor) -> bool:
    """Whether x is computed with on a CPU."""
    return x.device.type == "cpu" and (torch.compiler.is_compiling() or not _as_gpu.get())
