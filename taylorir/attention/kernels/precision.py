"""What the forms compute in: float32 at least, also under autocast."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def compute_dtype(x: Tensor) -> torch.dtype:
    """float32 for float16 and bfloat16, else the dtype of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def in_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of x."""
    kind = x.device.type
    if kind not in ("cpu", "cuda") and not torch.amp.is_autocast_available(kind):
        return False
    return torch.is_autocast_enabled(kind)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype that autocast casts x to where it is on; float64 stays."""
    return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(x.device.type)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Products inside keep the dtype of their factors; autocast would round them to 16 bits."""
    return torch.autocast(x.device.type, enabled=False) if in_autocast(x) else contextlib.nullcontext()


def full_precision(method: Callable) -> Callable:
    """Decorator of ``forward`` of an autograd function: :func:`without_autocast`."""

    @functools.wraps(method)
    def wrapped(ctx, x: Tensor, *rest):
        if not in_autocast(x):  # spares a small window the context
            return method(ctx, x, *rest)
        with without_autocast(x):
            return method(ctx, x, *rest)

    return wrapped


def full_precision_once(method: Callable) -> Callable:
    """Decorator of ``backward``: :func:`full_precision`, and an error if it is differentiated again."""
    guarded = once_differentiable(full_precision(method))

    @functools.wraps(method)
    def wrapped(ctx, dy: Tensor):
        if torch.is_grad_enabled() or in_autocast(dy):
            return guarded(ctx, dy)
        return method(ctx, dy)

    return wrapped
