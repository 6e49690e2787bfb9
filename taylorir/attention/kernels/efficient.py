"""TaylorShift attention in linear time, in plain PyTorch: features in chunks, recomputed in backward.

What is saved for backward: q, k, v as they came, the output, a normaliser a token and one small state a head.
Every array has its tokens last, so that a feature is one multiplication of two rows of C tokens.

Shape legend
    B, H, N, d, d_v   batch (windows), heads, tokens, width of q and k, width of v
    G   windows x heads of a portion, worked on at once
    C   tokens of a chunk
    n   d + 1: a row of ones and the d rows of a unit vector
    F   features: n (n + 1) / 2 = 1 + d + d (d + 1) / 2
    rows [G, n + n // 2, C]   ones, unit vector, and the first n // 2 of these rows again
    features [G, F, C]
    values [G, d_v + 1, C]   v and a row of ones, so that numerators and normaliser are one product
    states [G, d_v + 1, F], the last row for the normaliser
    out [G, d_v + 1, C]   numerators a and normaliser b of y = a / b

With r = (1, u), the features of u are the products r_i r_j over unordered pairs. Pairs are taken at equal
distance s around a circle, (i, i + s mod n) for s = 0 .. n // 2: that meets each pair once, and makes all
features one multiplication of r with shifted views of itself. For x = t u.w, 1 + x + x^2 / 2 is the sum over
the features of u, times those of w, times those of (t, .., t), halved where i = j > 0 (:eq:`eq-features`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from taylorir.attention.kernels.arithmetic import add_product, inverse_norm
from taylorir.attention.kernels.segments import (
    Execution,
    Portion,
    Segment,
    gradient_memory,
    output_memory,
    portions,
)

MAX_CHUNK = 2304


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    *,
    segments: list[Segment],
    output_scale: float,
    execution: Execution,
) -> list[Tensor]:
    """Attention of each segment's queries to its keys.

    Args:
        q, k: [B, H, N, d] of any strides and floating dtype; not normalised.
        v: [B, H, N, d_v].
        temperature: [H], of the dtype to compute in: float32 or float64.
        segments: which tokens attend to which.
        output_scale: factor of the output.
        execution: how the loops run.

    Returns:
        y [B, H, N, d_v] and 1 / b [B, H, N, 1] of the dtype of the temperature, and a state a portion.
    """
    y, inverse = output_memory(q, v, temperature.dtype, segments)  # rounded, y would upset the gradients
    states = []
    workspace = _Workspace(temperature)
    for portion in execution.portions(_portions(q, segments)):
        state = _state(portion, k, v, workspace)
        weighted = _by_head(state, _state_weights(temperature[portion.heads], q, v, output_scale))
        for chunk in portion.query_chunks:
            _, features, _ = _featurise(portion, q, chunk, workspace)
            out = torch.bmm(weighted, features)  # [G, d_v + 1, C]
            portion.store(inverse, chunk, out[:, -1:].reciprocal_())
            portion.store(y, chunk, out[:, :-1], out[:, -1:])
        states.append(state)
    return [y, inverse, *states]


def backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    y: Tensor,
    inverse: Tensor,
    *states: Tensor,
    segments: list[Segment],
    output_scale: float,
    execution: Execution,
    needs_temperature: bool,
) -> list[Tensor | None]:
    """dq, dk, dv and dtemperature (None if not needed) from what :func:`forward` took and returned.

    The states may be left out, and are then summed again.
    """
    dq, dk, dv = gradient_memory(q, k, v, segments)
    dtemperature = torch.zeros_like(temperature) if needs_temperature else None
    workspace = _Workspace(temperature)
    saved = iter(states)
    for portion in execution.portions(_portions(q, segments)):
        state = next(saved) if states else _state(portion, k, v, workspace)
        weights = _state_weights(temperature[portion.heads], q, v, output_scale)
        weighted, dweighted = _by_head(state, weights), None
        for chunk in portion.query_chunks:
            rows, features, scale = _featurise(portion, q, chunk, workspace)
            dout = _output_gradient(*(portion.load(x, chunk) for x in (dy, y, inverse)))
            dweighted = add_product(dweighted, dout, features.mT)
            dfeatures = torch.bmm(weighted.mT, dout, out=features)
            portion.store(dq, chunk, _unit_gradient(_rows_gradient(dfeatures, rows), rows), scale)
        if dtemperature is not None:
            dweights = (dweighted * state).unflatten(0, (-1, portion.num_heads)).sum(0)
            dtemperature[portion.heads] += _temperature_gradient(
                dweights, temperature[portion.heads], q, v, output_scale
            )
        dstate = _by_head(dweighted, weights)
        for chunk in portion.key_chunks:
            rows, features, scale = _featurise(portion, k, chunk, workspace)
            portion.store(dv, chunk, torch.bmm(dstate[:, :-1], features))
            values = _value_rows(portion.load(v, chunk), workspace.dtype)
            dfeatures = torch.bmm(dstate.mT, values, out=features)
            portion.store(dk, chunk, _unit_gradient(_rows_gradient(dfeatures, rows), rows), scale)
    return [dq, dk, dv, dtemperature]


def _portions(q: Tensor, segments: list[Segment]) -> Iterator[Portion]:
    n = q.shape[-1] + 1
    return portions(segments, q, MAX_CHUNK, n * (n + 1) // 2)


def _state(portion: Portion, k: Tensor, v: Tensor, workspace: _Workspace) -> Tensor:
    """sum_j (v_j, 1) f(k_j)^T over the tokens of a portion: [G, d_v + 1, F]."""
    state = None
    for chunk in portion.key_chunks:
        _, features, _ = _featurise(portion, k, chunk, workspace)
        state = add_product(state, _value_rows(portion.load(v, chunk), workspace.dtype), features.mT)
    return state


def _featurise(
    portion: Portion, x: Tensor, chunk: slice | Tensor, workspace: _Workspace
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [G, n + n // 2, C], features [G, F, C] and 1 / |x| [G, 1, C] of a chunk of q or k."""
    rows, scale = _unit_rows(portion.load(x, chunk), workspace.dtype, repeats=(x.shape[-1] + 1) // 2)
    return rows, _features(rows, workspace), scale


def _by_head(state: Tensor, weights: Tensor) -> Tensor:
    """State [G, d_v + 1, F] times the weights of its head [heads, d_v + 1, F]."""
    return (state.unflatten(0, (-1, len(weights))) * weights).flatten(0, 1)


def _state_weights(temperature: Tensor, q: Tensor, v: Tensor, output_scale: float) -> Tensor:
    """What a state is multiplied by between keys and queries: [heads, d_v + 1, F]."""
    features = _features(
        _temperature_rows(temperature, q.shape[-1]), _Workspace(temperature)
    ).mT  # [heads, 1, F]
    return features * _constant_weights(features, q, v, output_scale)


def _temperature_gradient(
    dweights: Tensor, temperature: Tensor, q: Tensor, v: Tensor, output_scale: float
) -> Tensor:
    """The gradient of the temperature [heads] from that of the weights [heads, d_v + 1, F]."""
    rows = _temperature_rows(temperature, q.shape[-1])
    dfeatures = (dweights * _constant_weights(dweights, q, v, output_scale)).sum(1)
    return _rows_gradient(dfeatures[..., None], rows)[:, 1:].sum((1, 2))


def _temperature_rows(temperature: Tensor, d: int) -> Tensor:
    """(1, t, .., t) and its first rows again: [heads, n + n // 2, 1]."""
    rows = temperature[:, None, None].repeat(1, d + 1 + (d + 1) // 2, 1)
    rows[:, :: d + 1] = 1
    return rows


def _constant_weights(like: Tensor, q: Tensor, v: Tensor, output_scale: float) -> Tensor:
    """1/2 for the squares, the output scale for the rows of v: [d_v + 1, F]."""
    weights = like.new_full((v.shape[-1] + 1, like.shape[-1]), output_scale)
    weights[-1] = 1
    weights[:, 1 : q.shape[-1] + 1].mul_(0.5)
    return weights


def _features(rows: Tensor, workspace: _Workspace) -> Tensor:
    """[G, F, C] from rows [G, n + n // 2, C]: row i times row i + s, for s = 0 .. n // 2."""
    n = _num_rows(rows)
    full = (n + 1) // 2  # distances of n pairs each; an even n has n // 2 pairs at the distance n // 2
    features = workspace.take(rows.shape[0], n * (n + 1) // 2, rows.shape[2])
    shifted = rows.unfold(1, n, 1)[:, :full].mT  # [G, full, n, C]
    torch.mul(rows[:, None, :n], shifted, out=features[:, : full * n].unflatten(1, (full, n)))
    if n % 2 == 0:
        torch.mul(rows[:, : n // 2], rows[:, n // 2 : n], out=features[:, full * n :])
    return features


def _rows_gradient(dfeatures: Tensor, rows: Tensor) -> Tensor:
    """The gradient of the first n rows [G, n, C] from that of the features [G, F, C]."""
    n = _num_rows(rows)
    drows = torch.zeros_like(rows)
    first, dfirst = rows[:, :n], drows[:, :n]
    for s, product in enumerate(dfeatures.split(n, dim=1)):  # [G, n, C]
        size = product.shape[1]
        if size < n:  # the last of an even n: n // 2 pairs
            first, dfirst = first[:, :size], dfirst[:, :size]
        dfirst.addcmul_(product, rows[:, s : s + size])
        drows[:, s : s + size].addcmul_(product, first)
    drows[:, : n // 2].add_(drows[:, n:])
    return drows[:, :n]


def _num_rows(rows: Tensor) -> int:
    return (2 * rows.shape[1] + 2) // 3


def _unit_rows(x: Tensor, dtype: torch.dtype, repeats: int = 0) -> tuple[Tensor, Tensor]:
    """Rows [G, n + repeats, C] of the vectors x [windows, heads, d, C], and 1 / |x| [G, 1, C].

    The first ``repeats`` rows are appended again, so that a shifted view of n rows goes round in a circle.
    """
    windows, heads, d, tokens = x.shape
    inverse = inverse_norm(x, 2, dtype)
    rows = inverse.new_empty((windows, heads, d + 1 + repeats, tokens))
    torch.mul(x, inverse, out=rows[:, :, 1 : d + 1])
    rows[:, :, 0].fill_(1)
    if repeats:
        rows[:, :, d + 1 :].copy_(rows[:, :, :repeats])
    return rows.flatten(0, 1), inverse.flatten(0, 1)


def _unit_gradient(drows: Tensor, rows: Tensor) -> Tensor:
    """|x| times the gradient of the vectors [G, d, C] from that of their rows: du - u (u . du)."""
    du, unit = drows[:, 1:], rows[:, 1 : drows.shape[1]]
    return du.addcmul(unit, (unit * du).sum(1, keepdim=True), value=-1)


def _value_rows(v: Tensor, dtype: torch.dtype) -> Tensor:
    """(v, 1) [G, d_v + 1, C] of the values v [windows, heads, d_v, C]."""
    windows, heads, width, tokens = v.shape
    values = v.new_empty((windows, heads, width + 1, tokens), dtype=dtype)
    values[:, :, :-1].copy_(v)
    values[:, :, -1].fill_(1)
    return values.flatten(0, 1)


def _output_gradient(dy: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of out = (a, b) from that of y = a / b; all [windows, heads, .., C]; inverse = 1 / b."""
    windows, heads, width, tokens = dy.shape
    dout = inverse.new_empty((windows, heads, width + 1, tokens))
    da = dout[:, :, :-1]
    torch.mul(dy, inverse, out=da)
    dout[:, :, -1].copy_((da * y).sum(2).neg_())
    return dout.flatten(0, 1)


class _Workspace:
    """One buffer that successive chunks share, so that its memory is in cache and mapped already.

    It has the dtype and device of ``like``; each ``take`` overwrites what the last one returned.
    """

    def __init__(self, like: Tensor):
        self.dtype: torch.dtype = like.dtype
        self._numbers = like.new_empty(0)

    def take(self, *shape: int) -> Tensor:
        """A contiguous tensor of any content."""
        size = math.prod(shape)
        if size > len(self._numbers):
            self._numbers = self._numbers.new_empty(size)
        return self._numbers[:size].view(shape)
