"""Chunks of tokens as rows: what the direct and the efficient form share.

Shape legend: windows x heads = G, C tokens, width d of q and k, d_v of v; n = d + 1.
    rows [G, n, C]: a row of ones and the d rows of a unit vector
    values [G, d_v + 1, C]: v and a row of ones, so that numerators and normaliser are one product
    out [G, d_v + 1, C]: numerators a and normaliser b of y = a / b
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12  # a vector of no greater norm counts as zero: its unit vector and its gradient are zero


def unit_rows(x: Tensor, dtype: torch.dtype, repeats: int = 0) -> tuple[Tensor, Tensor]:
    """Rows [G, n + repeats, C] of the vectors x [windows, heads, d, C], and 1 / |x| [G, 1, C].

    The first ``repeats`` rows are appended again, so that a shifted view of n rows goes round in a circle.
    """
    n = x.shape[2] + 1
    rows = x.new_empty((*x.shape[:2], n + repeats, x.shape[3]), dtype=dtype)
    rows[:, :, 1:n] = x
    rows = rows.flatten(0, 1)
    unit = rows[:, 1:n]
    square = (unit * unit).sum(1, keepdim=True)
    scale = square.rsqrt().masked_fill_(square <= EPSILON**2, 0)
    unit *= scale
    rows[:, 0] = 1
    if repeats:
        rows[:, n:] = rows[:, :repeats]
    return rows, scale


def unit_gradient(drows: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """The gradient of the vectors [G, d, C] from that of their rows: scale (du - u (u . du))."""
    du, unit = drows[:, 1:], rows[:, 1 : drows.shape[1]]
    return du.addcmul(unit, (unit * du).sum(1, keepdim=True), value=-1).mul_(scale)


def value_rows(v: Tensor, dtype: torch.dtype) -> Tensor:
    """(v, 1) [G, d_v + 1, C] of the values v [windows, heads, d_v, C]."""
    values = v.new_empty((*v.shape[:2], v.shape[2] + 1, v.shape[3]), dtype=dtype)
    values[:, :, :-1] = v
    values[:, :, -1] = 1
    return values.flatten(0, 1)


def output_gradient(dy: Tensor, y: Tensor, normaliser: Tensor) -> Tensor:
    """The gradient of out = (a, b) from that of y = a / b; arguments [windows, heads, .., C]."""
    dout = normaliser.new_empty((*dy.shape[:2], dy.shape[2] + 1, dy.shape[3]))
    dout[:, :, :-1] = dy
    dout[:, :, :-1] /= normaliser
    dout[:, :, -1] = (dout[:, :, :-1] * y).sum(2).neg_()
    return dout.flatten(0, 1)
