"""Fidelity of the Taylor softmax as rows, on q, k, v that are drawn at random or a network's own.

Shapes: q, k, v are ``[..., H, N, d]``; the columns are those of :func:`fidelity_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from taylorir.fidelity.distances import (
    ORDERS,
    cosine_scores,
    entropy,
    kl_divergence,
    output_error,
    scaled_scores,
    softmax_weights,
    taylor_weights,
    top_k_overlap,
    total_variation,
    total_variation_bound,
    worst_case_scores,
)


def fidelity_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    source: str,
    temperatures: Sequence[float] = (1.0,),
    orders: Sequence[int] = ORDERS,
    num_queries: int = 64,
    reference: str = "cosine",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare softmax and Taylor softmax on given q, k, v: a row per temperature and order.

    Args:
        q, k, v: ``[..., H, N, d]``, taken to float64.
        source: a name for the inputs, copied into each row.
        temperatures: what the cosine of q and k is multiplied by.
        orders: orders of the Taylor polynomial.
        num_queries: that many of the N queries are looked at, drawn without replacement.
        reference: ``"cosine"`` compares with softmax of the same scores; ``"scaled"`` with softmax of
            ``q k^T / sqrt(d)``, what a transformer has before TaylorShift takes its place.
        seed: of the draw of queries.

    Returns:
        Columns source, reference, num_tokens, head_dim, temperature, order, max_score (largest ``|score|``
        met), total_variation, total_variation_max, total_variation_bound (at max_score; NaN where the
        reference has other scores), kl, entropy_softmax and entropy_taylor (both divided by ln N),
        top_k_overlap (k a tenth of N, at least 1), output_error, largest_weight_softmax and
        largest_weight_taylor (times N: 1 is uniform).

    Raises:
        ValueError: an unknown ``reference``.
    """
    if reference not in ("cosine", "scaled"):
        raise ValueError(f"reference: got {reference!r}, expected 'cosine' or 'scaled'")
    q, k, v = (x.detach().double() for x in (q, k, v))
    num_tokens, head_dim = q.shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    q = q[..., torch.randperm(num_tokens, generator=generator)[:num_queries], :]
    cosine, top_k = cosine_scores(q, k), max(1, num_tokens // 10)
    rows = []
    for temperature in temperatures:
        scores = temperature * cosine
        p = softmax_weights(scores if reference == "cosine" else scaled_scores(q, k))
        for order in orders:
            t = taylor_weights(scores, order=order)
            distance, largest = total_variation(p, t), float(scores.abs().max())
            bound = float(total_variation_bound(largest, order=order)) if reference == "cosine" else math.nan
            rows.append(
                {
                    "source": source,
                    "reference": reference,
                    "num_tokens": num_tokens,
                    "head_dim": head_dim,
                    "temperature": float(temperature),
                    "order": order,
                    "max_score": largest,
                    "total_variation": float(distance.mean()),
                    "total_variation_max": float(distance.max()),
                    "total_variation_bound": bound,
                    "kl": float(kl_divergence(p, t).mean()),
                    "entropy_softmax": float(entropy(p).mean()) / math.log(max(num_tokens, 2)),
                    "entropy_taylor": float(entropy(t).mean()) / math.log(max(num_tokens, 2)),
                    "top_k_overlap": float(top_k_overlap(p, t, top_k).mean()),
                    "output_error": float(output_error(p, t, v).mean()),
                    "largest_weight_softmax": float(p.amax(-1).mean()) * num_tokens,
                    "largest_weight_taylor": float(t.amax(-1).mean()) * num_tokens,
                }
            )
    return pd.DataFrame(rows)


def worst_case_rows(
    num_tokens: int, largest_scores: Sequence[float], *, orders: Sequence[int] = ORDERS
) -> pd.DataFrame:
    """Rows built to be bad: columns source, num_tokens, order, max_score, total_variation_max."""
    rows = []
    for order in orders:
        for m in largest_scores:
            x = worst_case_scores(m, num_tokens, order=order)
            distance = float(total_variation(softmax_weights(x), taylor_weights(x, order=order)))
            row = {"source": f"built to be bad, N = {num_tokens}", "num_tokens": num_tokens, "order": order}
            rows.append(row | {"max_score": float(m), "total_variation_max": distance})
    return pd.DataFrame(rows)


def scene_rows(temperature: float, num_tokens: int) -> pd.DataFrame:
    """Three sets of N scores in -tau..tau under softmax and under the Taylor softmax: a row per set.

    "spread" runs evenly from -tau to tau; in "match" one key has tau and all others 0; "worst" is what
    :func:`worst_case_scores` gives.

    Returns:
        Columns key (of the set), softmax and taylor (weight of the heaviest key), apart (total variation).
    """
    match = torch.zeros(num_tokens, dtype=torch.float64)
    match[0] = temperature
    sets = {
        "spread": torch.linspace(-temperature, temperature, num_tokens, dtype=torch.float64),
        "match": match,
        "worst": worst_case_scores(temperature, num_tokens),
    }
    rows = []
    for key, scores in sets.items():
        soft, taylor = softmax_weights(scores), taylor_weights(scores)
        rows.append(
            {
                "key": key,
                "softmax": float(soft.max()),
                "taylor": float(taylor.max()),
                "apart": float(total_variation(soft, taylor)),
            }
        )
    return pd.DataFrame(rows)


def weight_curves(
    q: Tensor,
    k: Tensor,
    *,
    temperature: float = 1.0,
    num_queries: int = 64,
    num_points: int = 60,
    seed: int = 0,
) -> pd.DataFrame:
    """The shape of the distribution: weights of a row from heavy to light, times N, averaged over queries.

    Returns:
        Columns weights ("softmax of q k^T / sqrt(d)", "softmax of the cosines", "Taylor, order 2"), rank
        (0..1, share of the keys that are heavier), weight (1 is uniform).
    """
    q, k = q.detach().double(), k.detach().double()
    num_tokens = q.shape[-2]
    generator = torch.Generator().manual_seed(seed)
    q = q[..., torch.randperm(num_tokens, generator=generator)[:num_queries], :]
    cosine = temperature * cosine_scores(q, k)
    kinds = {
        "softmax of q k^T / sqrt(d)": softmax_weights(scaled_scores(q, k)),
        "softmax of the cosines": softmax_weights(cosine),
        "Taylor, order 2": taylor_weights(cosine),
    }
    picks = torch.linspace(0, num_tokens - 1, min(num_points, num_tokens)).round().long()
    curves = []
    for name, weights in kinds.items():
        ordered = weights.sort(-1, descending=True).values.flatten(0, -2).mean(0)[picks] * num_tokens
        rank = picks.double() / max(num_tokens - 1, 1)
        curves.append(pd.DataFrame({"weights": name, "rank": rank.numpy(), "weight": ordered.numpy()}))
    return pd.concat(curves, ignore_index=True)


def gaussian_qkv(
    num_tokens: int, *, head_dim: int = 30, num_heads: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Independent standard normal q, k, v ``[1, H, N, d]``, near to what an untrained network has."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 1, num_heads, num_tokens, head_dim)
    q, k, v = torch.randn(shape, generator=generator).unbind(0)
    return q, k, v


@torch.no_grad()
def collect_qkv(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """q, k and v of each window attention of ``model`` on ``image``, before any position is added.

    Args:
        model: a network whose attention modules have ``num_heads`` and a linear layer ``qkv`` and take tokens
            ``[B, H, W, C]``, as SwinIR's do.
        image: ``[B, 3, H, W]`` in 0..1.

    Returns:
        Module name -> q, k, v of all tokens, ``[3, B, heads, H, W, d]``; :func:`cut_windows` cuts them.

    Raises:
        ValueError: ``model`` has no such module.
    """
    caught: dict[str, Tensor] = {}

    def catcher(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def catch(attention: nn.Module, inputs: tuple[Tensor]) -> None:
            qkv = attention.qkv(inputs[0])  # [B, H, W, 3 C]
            caught[name] = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)

        return catch

    handles = [
        module.register_forward_pre_hook(catcher(name))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear) and hasattr(module, "num_heads")
    ]
    if not handles:
        raise ValueError(f"model: {type(model).__name__} has no attention with a linear layer named qkv")
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def cut_windows(qkv: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut q, k, v of an image into unshifted windows of any size; what does not fill one is left out.

    Args:
        qkv: ``[3, B, heads, H, W, d]``.
        height, width: of a window, in tokens.

    Returns:
        q, k, v, each ``[B windows, heads, N, d]`` with ``N = height * width``.

    Raises:
        ValueError: a window does not fit.
    """
    rows, columns = qkv.shape[3] // height, qkv.shape[4] // width
    if not rows * columns:
        raise ValueError(f"window: {height}x{width} does not fit into {list(qkv.shape[3:5])} tokens")
    qkv = qkv[:, :, :, : rows * height, : columns * width]
    qkv = qkv.unflatten(4, (columns, width)).unflatten(3, (rows, height))  # [3, B, heads, R, h, S, w, d]
    qkv = qkv.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(5, 6).flatten(1, 3)
    q, k, v = qkv.unbind(0)
    return q, k, v
