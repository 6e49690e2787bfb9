"""How faithful the Taylor softmax is to softmax: distances between their weights, and bounds that are proven.

Shapes: scores ``x`` and weights ``p``, ``t`` are ``[..., N]``: the last axis runs over the keys that
one query sees, each row of weights is non-negative and sums to 1. q, k, v are ``[..., H, N, d]``.

The proofs are in notebook 02. They rest on one ratio: with ``T`` the Taylor polynomial of even order ``k``
of the exponential, ``r(x) = T(x) exp(-x)`` never increases (``r'(x) = -exp(-x) x^k / k!``), so on ``[-m,
m]`` it lies between ``r(m)`` and ``r(-m)``; the spread ``rho = r(-m) / r(m)`` bounds every distance below.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    """How far the attention output moves, ``|t v - p v|``, over the spread of the values, ``[...]``.

    The spread is the root mean square distance of a value from their mean. It does not vanish where softmax
    is uniform, as what softmax adds to the mean does.

    Args:
        p, t: weights ``[..., M, N]`` of the reference and of the approximation.
        v: values ``[..., N, d]``.
    """
    centred = v - v.mean(-2, keepdim=True)  # moves as v does: the weights of both sum to 1
    moved = ((t - p) @ centred).norm(dim=-1)
    spread = centred.square().sum(-1).mean(-1, keepdim=True).sqrt()
    return torch.where(moved == 0, 0.0, moved / spread)


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
    likes. For small m it is ``m^3 / 12`` (order 2); at ``m = 1`` it is below 0.1.
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
    return np.where(s < 1e-3, s**2 / 8, exact)[()]


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
