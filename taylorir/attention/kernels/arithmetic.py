"""The steps that both fast forms are made of: inverse norms, and products into memory that exists already."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from taylorir.attention.reference import EPSILON


def inverse_norm(x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """1 / |x| along an axis, which stays with length 1; zero where |x| is not above epsilon."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=dtype)
    return functional.threshold(norm, EPSILON, math.inf).reciprocal_()


def multiply(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Write x y to a view in one pass; ``torch.compile`` cannot trace that, but finds it by itself."""
    if torch.compiler.is_compiling():
        out.copy_(x * y)
    else:
        torch.mul(x, y, out=out)


def add_product(total: Tensor | None, a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """total + factor a b, in the memory of ``total`` if there is one."""
    if total is None:
        return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=factor)
    return torch.baddbmm(total, a, b, alpha=factor, out=total)
