"""What the forms compute in: float32 at least, also under autocast."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """float32 for float16 and bfloat16, else the dtype of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast casts x to, None where it is off or does not apply (float64)."""
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.amp.is_autocast_available(kind):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Products inside keep the dtype of their factors; autocast would round them to 16 bits."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def full_precision(method: Callable) -> Callable:
    """Decorator of ``forward`` and ``backward`` of an autograd function: :func:`without_autocast`."""

    @functools.wraps(method)
    def wrapped(ctx, x: Tensor, *rest):
        with without_autocast(x):
            return method(ctx, x, *rest)

    return wrapped
