"""The steps that both fast forms are made of: inverse norms, and products into memory that exists already."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.attention.reference import EPSILON


def inverse_norm(x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """1 / |x| along an axis, which stays with length 1; zero where |x| is not above epsilon."""
    if x.stride(dim) != 1 and x.dtype == dtype:  # where vector_norm takes ten times as long
        return torch.threshold_((x * x).sum(dim, keepdim=True), EPSILON**2, math.inf).rsqrt_()
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=dtype)
    return torch.threshold_(norm, EPSILON, math.inf).reciprocal_()


def add_product(total: Tensor | None, a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """total + factor a b, in the memory of ``total`` if there is one."""
    if total is None:
        return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=factor)
    return torch.baddbmm(total, a, b, alpha=factor, out=total)
