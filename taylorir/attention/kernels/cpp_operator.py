"""The forms in C++ for the CPU (``cpp/``): features and weights never leave the processor's first cache.

Built at first use (:mod:`taylorir.attention.kernels.cpp_build`); they compute what :mod:`efficient` and
:mod:`direct` compute, and save the same.

Shape legend: q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; labels [B, N] and [B, M]; tau [H]
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylorir.attention.kernels.segments import output_memory


def labels_of(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as the kernels take them, in memory of their own: int64, contiguous."""
    own = queries.to(torch.int64, copy=True).contiguous()
    return own, own if keys is queries else keys.to(torch.int64, copy=True).contiguous()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    *,
    efficient: bool,
    segments: tuple[Tensor, Tensor] | None,
    output_scale: float,
    execution: object = None,
) -> list[Tensor]:
    """y [B, H, N, d_v], 1 / b [B, H, N, 1] and the states, of the dtype of the temperature.

    Args:
        efficient: the efficient form, or the direct one, which has no states.
        segments: labels, or None where all tokens of a window attend to all.
    """
    y, inverse = output_memory(q, v, temperature.dtype)
    labels = segments or (None, None)
    states = torch.ops.taylorir_cpp.forward(
        q, k, v, temperature, *labels, output_scale, efficient, y, inverse
    )
    return [y, inverse, states]


def backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    y: Tensor,
    inverse: Tensor,
    states: Tensor | None = None,
    *,
    efficient: bool,
    segments: tuple[Tensor, Tensor] | None,
    output_scale: float,
    execution: object = None,
    needs_temperature: bool = True,
) -> list[Tensor]:
    """dq, dk, dv and the temperature's gradient. States that were not kept are summed again."""
    labels = segments or (None, None)
    options = (temperature, *labels, output_scale, efficient)
    if states is None:
        again = torch.empty_like(y), torch.empty_like(inverse)
        states = torch.ops.taylorir_cpp.forward(q, k, v, *options, *again)
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    if segments is not None:  # keys of a label that no query has are in no segment
        gradients = [x.zero_() for x in gradients]
    dtau = torch.ops.taylorir_cpp.backward(dy, q, k, v, *options, y, inverse, states, *gradients)
    return [*gradients, dtau]
