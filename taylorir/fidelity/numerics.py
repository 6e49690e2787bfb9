"""How much each form of TaylorShift attention loses in low precision: rows of error against float64.

q, k, v are ``[1, H, N, d]``, drawn in float64 and rounded to the dtype under test; the reference is computed
in float64 from the rounded ones, so that an error is the arithmetic's and not the input's.

``python -m taylorir.fidelity.numerics data/results/numerics.csv`` measures where the quadratic form takes
minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from taylorir.attention import taylor_attention, taylor_efficient
from taylorir.rows import provenance, write_rows

DTYPES = ("float32", "float16", "bfloat16")


def direct(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The library's direct form, in blocks whatever N is (:eq:`eq-direct`)."""
    return taylor_attention(q, k, v, crossover=math.inf)


def naive_direct(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The direct form as one would first write it, each step rounded to the dtype of q (:eq:`eq-direct`)."""
    x = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    weights = 1 + x + x * x / 2
    return weights @ v / weights.sum(-1, keepdim=True)


def naive_efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The efficient form as one would first write it, all d^2 products, all rounded (:eq:`eq-efficient`)."""
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    v = F.pad(v, (0, 1), value=1.0)
    squares = [(x[..., :, None] * x[..., None, :]).flatten(-2) for x in (q, k)]
    y = v.sum(-2, keepdim=True) + q @ (k.mT @ v) + squares[0] @ (squares[1].mT @ v) / 2
    return y[..., :-1] / y[..., -1:]


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "direct": direct,
    "efficient": taylor_efficient,
    "naive direct": naive_direct,
    "naive efficient": naive_efficient,
}


def error_rows(
    num_tokens: Iterable[int],
    *,
    head_dim: int = 10,
    num_heads: int = 2,
    dtypes: Sequence[str] = DTYPES,
    forms: Sequence[str] = tuple(FORMS),
    quadratic_up_to: int = 4096,
    gradients_up_to: int = 4096,
    seed: int = 0,
) -> pd.DataFrame:
    """Relative error of outputs and gradients against float64 as N grows: one row a measurement.

    Args:
        num_tokens: N of each measurement.
        forms: names of ``FORMS``.
        quadratic_up_to: largest N at which the forms that are quadratic in N, or store features, are run.
        gradients_up_to: largest N at which gradients are taken.

    Returns:
        Columns form, num_tokens, head_dim, quantity ("output" | "gradient", the worst of q, k and v), error
        (Frobenius norm, relative; inf where a value is not finite), and those of the provenance.

    Raises:
        ValueError: an unknown form or dtype.
    """
    rows = []
    for count in num_tokens:
        for name in dtypes:
            inputs = _inputs(count, head_dim, num_heads, _dtype(name), seed)
            expected = _run(
                FORMS["efficient"], [x.double() for x in inputs], gradients=count <= gradients_up_to
            )
            for form in forms:
                if form not in FORMS:
                    raise ValueError(f"form: got {form!r}, expected one of {', '.join(FORMS)}")
                if form != "efficient" and count > quadratic_up_to:
                    continue
                found = _run(FORMS[form], inputs, gradients=count <= gradients_up_to)
                origin = provenance(dtype=_dtype(name), seed=seed)
                row = {"form": form, "num_tokens": count, "head_dim": head_dim}
                rows.append(
                    row | {"quantity": "output", "error": relative_error(found[0], expected[0])} | origin
                )
                if len(found) > 1:
                    worst = max(relative_error(a, b) for a, b in zip(found[1:], expected[1:], strict=True))
                    rows.append(row | {"quantity": "gradient", "error": worst} | origin)
    return pd.DataFrame(rows)


def range_rows(
    scales: Iterable[float],
    *,
    num_tokens: int = 576,
    head_dim: int = 10,
    num_heads: int = 2,
    dtypes: Sequence[str] = DTYPES,
    forms: Sequence[str] = tuple(FORMS),
    seed: int = 0,
) -> pd.DataFrame:
    """Relative error of the outputs when q and k, or v, are multiplied by ``scale``: where a dtype gives out.

    Scales that push the *inputs* themselves out of the dtype's range are left out.

    Returns:
        Columns form, quantity ("scale of q and k" | "scale of v"), scale, error (inf where a value is not
        finite), and those of the provenance.
    """
    rows = []
    for scale in scales:
        for name in dtypes:
            for quantity in ("scale of q and k", "scale of v"):
                q, k, v = _inputs(num_tokens, head_dim, num_heads, torch.float64, seed)
                q, k, v = (q * scale, k * scale, v) if quantity == "scale of q and k" else (q, k, v * scale)
                inputs = [x.to(_dtype(name)) for x in (q, k, v)]
                if not all(x.isfinite().all() and x.any() for x in inputs):
                    continue
                (expected,) = _run(FORMS["efficient"], [x.double() for x in inputs], gradients=False)
                for form in forms:
                    (found,) = _run(FORMS[form], inputs, gradients=False)
                    row = {"form": form, "quantity": quantity, "scale": scale}
                    origin = provenance(dtype=_dtype(name), seed=seed)
                    rows.append(row | {"error": relative_error(found, expected)} | origin)
    return pd.DataFrame(rows)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|`` in the Frobenius norm; inf where a value found is not finite."""
    if not found.isfinite().all():
        return math.inf
    return float((found.double() - expected).norm() / expected.norm())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the direct and the efficient form at large N and write the rows."""
    parser = argparse.ArgumentParser(prog="python -m taylorir.fidelity.numerics", description=main.__doc__)
    parser.add_argument("out", type=Path, help="CSV to write")
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[16384, 65536])
    parser.add_argument("--head-dim", type=int, default=10)
    chosen = parser.parse_args(arguments)
    rows = error_rows(
        chosen.num_tokens,
        head_dim=chosen.head_dim,
        num_heads=1,
        forms=("direct", "efficient"),
        quadratic_up_to=max(chosen.num_tokens),
        gradients_up_to=0,
    )
    write_rows(chosen.out, rows)


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"dtype: got {name!r}, expected one of {', '.join(DTYPES)}")
    return getattr(torch, name)


def _inputs(num_tokens: int, head_dim: int, num_heads: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 1, num_heads, num_tokens, head_dim)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).unbind(0))


def _run(form: Callable[..., Tensor], inputs: Sequence[Tensor], *, gradients: bool) -> list[Tensor]:
    """The output, then the gradients of q, k, v for a fixed cotangent, standard normal."""
    if not gradients:
        with torch.no_grad():
            return [form(*inputs)]
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    output = form(*leaves)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    return [output.detach(), *torch.autograd.grad(output, leaves, cotangent.to(output.dtype))]


if __name__ == "__main__":
    main()
