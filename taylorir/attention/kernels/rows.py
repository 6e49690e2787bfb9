"""Chunks of tokens as rows of tokens, and the small steps that both forms are made of.

Shape legend: windows x heads = G, C tokens, width d of q and k, d_v of v; n = d + 1.
    rows [G, n, C]: a row of ones and the d rows of a unit vector
    values [G, d_v + 1, C]: v and a row of ones, so that numerators and normaliser are one product
    out [G, d_v + 1, C]: numerators a and normaliser b of y = a / b
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-12  # a vector of no greater norm counts as zero: its unit vector and its gradient are zero


def unit_rows(x: Tensor, dtype: torch.dtype, repeats: int = 0) -> tuple[Tensor, Tensor]:
    """Rows [G, n + repeats, C] of the vectors x [windows, heads, d, C], and 1 / |x| [G, 1, C].

    The first ``repeats`` rows are appended again, so that a shifted view of n rows goes round in a circle.
    """
    windows, heads, d, tokens = x.shape
    inverse = inverse_norm(x, 2, dtype)
    rows = inverse.new_empty((windows, heads, d + 1 + repeats, tokens))
    multiply(x, inverse, rows[:, :, 1 : d + 1])
    rows[:, :, 0].fill_(1)
    if repeats:
        rows[:, :, d + 1 :].copy_(rows[:, :, :repeats])
    return rows.flatten(0, 1), inverse.flatten(0, 1)


def inverse_norm(x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """1 / |x| along an axis, which stays with length 1; zero where |x| is not above epsilon."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=dtype)
    return functional.threshold(norm, EPSILON, math.inf).reciprocal_()


def unit_gradient(drows: Tensor, rows: Tensor) -> Tensor:
    """|x| times the gradient of the vectors [G, d, C] from that of their rows: du - u (u . du)."""
    du, unit = drows[:, 1:], rows[:, 1 : drows.shape[1]]
    return du.addcmul(unit, (unit * du).sum(1, keepdim=True), value=-1)


def value_rows(v: Tensor, dtype: torch.dtype) -> Tensor:
    """(v, 1) [G, d_v + 1, C] of the values v [windows, heads, d_v, C]."""
    windows, heads, width, tokens = v.shape
    values = v.new_empty((windows, heads, width + 1, tokens), dtype=dtype)
    values[:, :, :-1].copy_(v)
    values[:, :, -1].fill_(1)
    return values.flatten(0, 1)


def output_gradient(dy: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of out = (a, b) from that of y = a / b; all [windows, heads, .., C]; inverse = 1 / b."""
    windows, heads, width, tokens = dy.shape
    dout = inverse.new_empty((windows, heads, width + 1, tokens))
    da = dout[:, :, :-1]
    multiply(dy, inverse, da)
    dout[:, :, -1].copy_((da * y).sum(2).neg_())
    return dout.flatten(0, 1)


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
