"""How faithful the Taylor softmax is to softmax: distances between their weights, and bounds that are proven.

Shapes: scores ``x`` and weights ``p``, ``t`` are ``[..., N]``: the last axis runs over the keys that one
    query
sees, each row of weights is non-negative and sums to 1. q, k, v are ``[..., H, N, d]``.

The proofs are in notebook 02. They rest on one ratio: with ``T`` the Taylor polynomial of even order ``k``
of the exponential, ``r(x) = T(x) exp(-x)`` never increases (``r'(x) = -exp(-x) x^k / k!``), so on ``[-m,
m]`` it lies between ``r(m)`` and ``r(-m)``; the spread ``rho = r(-m) / r(m)`` bounds every distance below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ORDERS = (2, 4, 6)


# --- weights --------------------------------------------------------------------------------------


def softmax_weights(scores: Tensor) -> Tensor:
    """Softmax over the last axis of ``scores`` ``[..., N]``."""
    return scores.softmax(-1)


def taylor_weights(scores: Tensor, *, order: int = 2) -> Tensor:
    """Taylor softmax over the last axis of ``scores`` ``[..., N]`` (:eq:`eq-taylor-softmax`).

    Raises:
        ValueError: ``order`` is not a positive even number (an odd polynomial has a negative side: no
            weights).
    """
    weights = _polynomial(scores, order)
    return weights / weights.sum(-1, keepdim=True)


def cosine_scores(q: Tensor, k: Tensor) -> Tensor:
    """TaylorShift's scores at temperature 1: cosines of queries and keys ``[..., H, M, N]``, in -1..1."""
    return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """Scores of SwinIR without its position bias: ``q k^T / sqrt(d)``, ``[..., H, M, N]``."""
    return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5


# --- distances between two rows of weights --------------------------------------------------------


def total_variation(p: Tensor, t: Tensor) -> Tensor:
    """Half the sum of ``|p - t|``, 0..1: the most weight that a set of keys can gain or lose."""
    return (p - t).abs().sum(-1) / 2


def kl_divergence(p: Tensor, t: Tensor) -> Tensor:
    """``sum p ln(p / t)`` in nats, ``[...]``; keys with ``p = 0`` add nothing."""
    return torch.where(p > 0, p * (p.clamp_min(torch.finfo(p.dtype).tiny) / t).log(), 0.0).sum(-1)


def entropy(p: Tensor) -> Tensor:
    """``-sum p ln p`` in nats, 0..ln N, ``[...]``; ``exp`` of it is the number of keys effectively seen."""
    return torch.special.entr(p).sum(-1)


def top_k_overlap(p: Tensor, t: Tensor, k: int) -> Tensor:
    """Share of the ``k`` heaviest keys of ``p`` that are among the ``k`` heaviest of ``t``; 0..1, ``[...]``.

    Raises:
        ValueError: ``k`` is not in 1..N.
    """
    if not 1 <= k <= p.shape[-1]:
        raise ValueError(f"k: got {k}, expected 1..{p.shape[-1]}, the number of keys")
    in_p, in_t = (torch.zeros_like(w).scatter(-1, w.topk(k).indices, 1.0) for w in (p, t))
    return (in_p * in_t).sum(-1) / k


def output_error(p: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Relative error of the attention output, ``|t v - p v| / |p v - mean v|``, ``[...]``.

    The mean of v is taken off below, since uniform weights reach it for free: 1 means that ``t`` says no
        more about
    what softmax picked than uniform weights can.

    Args:
        p, t: weights ``[..., M, N]`` of the reference and of the approximation.
        v: values ``[..., N, d]``.
    """
    wrong = ((t - p) @ v).norm(dim=-1)
    picked = (p @ v - v.mean(-2, keepdim=True)).norm(dim=-1)
    return torch.where(wrong == 0, 0.0, wrong / picked)


# --- what is proven -------------------------------------------------------------------------------


def log_spread(largest_score: float | np.ndarray, *, order: int = 2) -> np.ndarray:
    """``ln rho(m) = 2m + ln T(-m) - ln T(m)`` for scores in ``[-m, m]``; it never decreases in m.

    Args:
        largest_score: ``m``, the largest ``|score|``, not negative.

    Raises:
        ValueError: a negative ``largest_score``, or an order that is not positive and even.
    """
    m = np.asarray(largest_score, dtype=np.float64)
    if (m < 0).any():
        raise ValueError(f"largest_score: got {m.min()}, expected a number that is not negative")
    return 2 * m + np.log(_polynomial(-m, order)) - np.log(_polynomial(m, order))


def total_variation_bound(largest_score: float | np.ndarray, *, order: int = 2) -> np.ndarray:
    """Largest total variation of softmax and Taylor softmax for scores in ``[-m, m]``: ``tanh(ln rho / 4)``.

    Holds for every number of keys, and cannot be lowered: :func:`worst_case_scores` comes as close as one
        likes.
    For small m it is ``m^3 / 12`` (order 2); at ``m = 1`` it is below 0.1.
    """
    return np.tanh(log_spread(largest_score, order=order) / 4)


def score_change_bound(
    largest_change: float | np.ndarray, smallest_change: float | np.ndarray = 0.0
) -> np.ndarray:
    """Bound on the total variation between two softmax rows whose scores differ by smallest..largest_change.

    ``tanh((largest - smallest) / 4)``, by the same lemma. Added to :func:`total_variation_bound` it covers
    what a network feels when TaylorShift takes the place of softmax *and* the scores change with it.
    """
    return np.tanh((np.asarray(largest_change, dtype=np.float64) - smallest_change) / 4)


def kl_bound(largest_score: float | np.ndarray, *, order: int = 2) -> np.ndarray:
    """Bound on the Kullback-Leibler divergence, in nats and in both directions, for scores in ``[-m, m]``.

    It is the logarithm of Specht's ratio, ``ln((rho - 1) / ln rho) - 1 + ln rho / (rho - 1)``, about
    ``(ln rho)^2 / 8`` for small ones.
    """
    s = log_spread(largest_score, order=order)
    small = np.maximum(s, 1e-3)
    exact = np.log(np.expm1(small) / small) - 1 + small / np.expm1(small)
    return np.where(s < 1e-3, s**2 / 8, exact)


def max_weight_ratio(temperature: float, *, order: int | None = 2) -> float:
    """Largest ratio of two weights in one row when cosines are multiplied by ``temperature``.

    Args:
        temperature: positive.
        order: of the Taylor softmax, or None for softmax itself, ``exp(2 temperature)``.

    Raises:
        ValueError: ``temperature`` is not positive, or an order that is not positive and even.
    """
    if temperature <= 0:
        raise ValueError(f"temperature: got {temperature}, expected a positive number")
    if order is None:
        return math.exp(2 * temperature)
    least = max(-temperature, monotone_from(order))
    return float(_polynomial(temperature, order) / _polynomial(least, order))


def monotone_from(order: int = 2) -> float:
    """The score below which a *smaller* score weighs *more*: the one real root of T', -1 for order 2."""
    derivative = [1 / math.factorial(n) for n in range(_even(order) - 1, -1, -1)]
    roots = np.roots(derivative)
    return float(roots[np.argmin(np.abs(roots.imag))].real)


def worst_case_scores(largest_score: float, num_tokens: int, *, order: int = 2) -> Tensor:
    """Scores ``[N]``, each ``m`` or ``-m``, that come as near to the bound as ``N`` keys can, in float64.

    The bound is met when softmax gives the keys at ``-m`` the mass ``1 / (1 + sqrt(rho))``; the number of
    keys that comes nearest is taken.

    Raises:
        ValueError: fewer than two keys, a negative score, or an order that is not positive and even.
    """
    if num_tokens < 2:
        raise ValueError(f"num_tokens: got {num_tokens}, expected at least 2")
    half_spread = float(log_spread(largest_score, order=order)) / 2
    share_low = 1 / (1 + math.exp(half_spread - 2 * largest_score))
    num_low = min(max(round(num_tokens * share_low), 1), num_tokens - 1)
    scores = torch.full((num_tokens,), float(largest_score), dtype=torch.float64)
    scores[:num_low] *= -1
    return scores


# --- rows -----------------------------------------------------------------------------------------


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
    """Distances on rows that are built to be bad: columns source, num_tokens, order, max_score, total_variation_max."""
    rows = []
    for order in orders:
        for m in largest_scores:
            x = worst_case_scores(m, num_tokens, order=order)
            distance = float(total_variation(softmax_weights(x), taylor_weights(x, order=order)))
            row = {"source": f"built to be bad, N = {num_tokens}", "num_tokens": num_tokens, "order": order}
            rows.append(row | {"max_score": float(m), "total_variation_max": distance})
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
def collect_qkv(
    model: nn.Module, image: Tensor, *, window: int | tuple[int, int]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """q, k, v of each window attention of ``model`` on ``image``, before any position is added.

    The network runs with its own windows; q, k and v are then cut into windows of the size asked for,
    unshifted, so that the same features can be looked at through windows of any size.

    Args:
        model: a network whose attention modules have ``num_heads`` and a linear layer ``qkv``, as SwinIR's
            do.
        image: ``[B, 3, H, W]`` in 0..1.
        window: side of a window in tokens, or its height and width. What does not fill a window is left out.

    Returns:
        Module name -> q, k, v, each ``[windows, H, N, d]``.

    Raises:
        ValueError: ``model`` has no such module, or a window does not fit into the image.
    """
    caught: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    height, width = (window, window) if isinstance(window, int) else window

    def catcher(name: str, num_heads: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def catch(_module: nn.Module, _inputs: tuple, qkv: Tensor) -> None:  # [B, H, W, 3 C]
            rows, columns = qkv.shape[1] // height, qkv.shape[2] // width
            if not rows * columns:
                raise ValueError(f"window: {height}x{width} does not fit into {list(qkv.shape[1:3])} tokens")
            qkv = qkv[:, : rows * height, : columns * width]
            qkv = qkv.unflatten(1, (rows, height)).unflatten(3, (columns, width)).transpose(2, 3)
            qkv = qkv.flatten(3, 4).flatten(0, 2).unflatten(-1, (3, num_heads, -1))  # [windows, N, 3, H, d]
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            caught[name] = (q, k, v)

        return catch

    handles = [
        module.qkv.register_forward_hook(catcher(name, module.num_heads))
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


def _polynomial(x: Tensor | np.ndarray | float, order: int) -> Any:
    """T of ``x``, the exponential's series up to ``order``, by Horner's rule; of the type of ``x``."""
    value = 1 + x / _even(order)
    for n in range(order - 1, 0, -1):
        value = 1 + x * value / n
    return value


def _even(order: int) -> int:
    if order < 2 or order % 2:
        raise ValueError(
            f"order: got {order}, expected a positive even number; odd polynomials turn negative"
        )
    return order
