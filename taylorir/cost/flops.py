"""Floating-point work, counted from the operators that really run, beside the closed formulas.

A product of an [a, b] and a [b, c] matrix counts as 2 a b c operations (a multiplication and an addition
each), a convolution likewise; element-wise work is not counted, nor is it in the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from taylorir.attention import softmax_attention, taylor_direct, taylor_efficient
from taylorir.attention.kernels.segments import executing
from taylorir.cost.allocations import record
from taylorir.cost.memory import MemoryPoint, build
from taylorir.cost.tracing import WholeWindows, run_once
from taylorir.networks import taylor_efficient_published
from taylorir.rows import provenance

FORMS = {
    "softmax_naive": softmax_attention,
    "taylor_direct": taylor_direct,
    "taylor_published": taylor_efficient_published,
    "taylor_efficient": lambda q, k, v: taylor_efficient(q, k, v, backend="torch"),
}
"""Attention whose products are counted; all called with q, k, v [..., H, N, d]."""


QUADRATIC = ("softmax_naive", "softmax_fused", "softmax_flash", "taylor_direct")
"""Forms with the products of all pairs; they differ in what they write to memory."""


def product_flops(method: str, num_tokens: int, head_dim: int) -> int:
    """Operations in the matrix products of one head, forward, by formula.

    softmax, fused or not, and direct: 4 N^2 d. Published, with all d^2 features, d + 1 columns
    (:eq:`eq-efficient`): 4 N (d^2 + d) (d + 1). Ours, with F = 1 + d + d (d + 1) / 2 features: 4 N F (d + 1).

    Raises:
        ValueError: an unknown method.
    """
    n, d = num_tokens, head_dim
    formulas = {
        **dict.fromkeys(QUADRATIC, 4 * n * n * d),
        "taylor_published": 4 * n * (d * d + d) * (d + 1),
        "taylor_efficient": 4 * n * (1 + d + d * (d + 1) // 2) * (d + 1),
    }
    if method not in formulas:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(formulas)}")
    return formulas[method]


def held_numbers(method: str, num_tokens: int, head_dim: int) -> int:
    """Numbers that one head holds at the most expensive moment of the published forms, by formula.

    Direct: d N + 2 N^2. Efficient, with all d^2 products: d^2 (d + 1) + 2 d N + (d + 1) N + d^2 N
    (:eq:`eq-crossover-memory`).

    Raises:
        ValueError: a method that is not "taylor_direct" or "taylor_published".
    """
    n, d = num_tokens, head_dim
    formulas = {
        "taylor_direct": d * n + 2 * n * n,
        "taylor_published": d * d * (d + 1) + 2 * d * n + (d + 1) * n + d * d * n,
    }
    if method not in formulas:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(formulas)}")
    return formulas[method]


def form_rows(window_size: int, head_dim: int, num_heads: int) -> pd.DataFrame:
    """Every form by formula: a row per method.

    Returns:
        Columns method, operations (per token, all heads), held (numbers per head; NaN where no formula is
        published).
    """
    n = window_size**2
    rows = [
        {
            "method": method,
            "operations": num_heads * product_flops(method, n, head_dim) / n,
            "held": held_numbers(method, n, head_dim)
            if method in ("taylor_direct", "taylor_published")
            else None,
        }
        for method in (*QUADRATIC, "taylor_published", "taylor_efficient")
    ]
    return pd.DataFrame(rows).astype({"held": float})


def counted_flops(method: str, num_tokens: int, head_dim: int, *, train: bool = False) -> int:
    """Operations in the matrix products of one head, from the operators that run; forward, or with backward.

    Raises:
        ValueError: an unknown method.
    """
    if method not in FORMS:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(FORMS)}")
    q, k, v = (torch.ones(1, 1, num_tokens, head_dim, requires_grad=train) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        y = FORMS[method](q, k, v)
        if train:
            y.sum().backward()
    return counter.get_total_flops()


def flop_rows(
    methods: Sequence[str] = tuple(FORMS),
    num_tokens: Sequence[int] = (64, 256, 576, 1024, 2304),
    head_dims: Sequence[int] = (10, 15, 30),
) -> pd.DataFrame:
    """Counted and predicted operations of one head: one row a method, N and d."""
    rows = [
        {
            "method": method,
            "num_tokens": n,
            "head_dim": d,
            "forward_flops": counted_flops(method, n, d),
            "formula_flops": product_flops(method, n, d),
            "train_flops": counted_flops(method, n, d, train=True),
        }
        for d in head_dims
        for n in num_tokens
        for method in methods
    ]
    return pd.DataFrame([row | provenance(seed=0) for row in rows])


PARTS = {
    "bmm": "attention",
    "baddbmm": "attention",
    "mm": "linear",
    "addmm": "linear",
    "convolution": "convolution",
    "convolution_backward": "convolution",
}
"""The part of a network that an operator belongs to: only attention multiplies batches of matrices."""


def network_flops(point: MemoryPoint) -> dict[str, int]:
    """Operations of a whole network by part, keys the values of ``PARTS``; no arithmetic is run.

    Args:
        point: what to count; in mode "train" forward and backward.
    """
    with torch.device("meta"):
        model = build(point).train(point.mode == "train")
        image = torch.empty(point.batch, 3, point.lr_size, point.lr_size)
    with (
        torch.set_grad_enabled(point.mode == "train"),
        record(run=run_once),  # shapes are worked out once, as blocks are alike
        executing(WholeWindows()),
        FlopCounterMode(display=False) as counter,
    ):
        sr = model(image)
        if point.mode == "train":
            sr.sum().backward()
    parts = dict.fromkeys(PARTS.values(), 0)
    for operator, flops in counter.get_flop_counts()["Global"].items():
        parts[PARTS[operator.__name__]] += flops
    return parts


def network_flop_rows(
    models: Sequence[str] = ("S", "M"),
    methods: Sequence[str] = tuple(FORMS),
    windows: Sequence[int] = (8, 48),
    lr_size: int = 48,
) -> pd.DataFrame:
    """Operations of whole networks at x2, attention apart from the rest: one row a network and mode.

    All parts grow with the number of LR pixels, so one ``lr_size``, a multiple of the windows, says all.
    """
    points = [
        MemoryPoint(model, method, False, window, lr_size, 2, mode)
        for model in models
        for window in windows
        for method in methods
        for mode in ("infer", "train")
    ]
    keys = ("model", "method", "window_size", "lr_size", "mode")
    rows = [
        {key: getattr(point, key) for key in keys}
        | {f"{part}_flops": flops for part, flops in network_flops(point).items()}
        for point in points
    ]
    return pd.DataFrame([row | provenance(seed=0) for row in rows])


def cost_parity(head_dim: int, method: str = "taylor_efficient") -> float:
    """The softmax window side w that costs, in products a token, what the efficient form costs at any window.

    Softmax takes 4 w^2 d operations a token of a head; the efficient form takes a number that its window does
    not change. Below w softmax is the cheaper one, above it TaylorShift.

    Args:
        head_dim: d of both.
        method: "taylor_efficient" or "taylor_published".
    """
    return (product_flops(method, 1, head_dim) / (4 * head_dim)) ** 0.5


def parity_rows(
    head_dims: Sequence[int] = (10, 15, 30), windows: Sequence[int] = tuple(range(2, 97))
) -> pd.DataFrame:
    """Cost a token of each form at each window, over that of softmax at 8 x 8 of the same head width."""
    rows = []
    for d in head_dims:
        unit = product_flops("softmax_naive", 64, d) / 64
        for method in FORMS:
            for w in windows:
                cost = product_flops(method, w * w, d) / w**2
                rows.append({"method": method, "head_dim": d, "window_size": w, "relative_cost": cost / unit})
    return pd.DataFrame(rows)
