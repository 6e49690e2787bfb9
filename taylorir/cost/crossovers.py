"""From how many tokens the efficient form is faster than the direct one, measured on a CPU.

``python -m taylorir.cost.crossovers`` measures the C++ kernels and writes the table by which
:func:`taylorir.attention.taylor_attention` chooses between them; by operations alone they would meet where
:func:`taylorir.attention.crossover_flops` says. A processor with a tile unit (AMX) is measured with it and
without, for those that have none.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from taylorir.attention import CROSSOVERS, crossover_flops, taylor_attention, tile_unit, uses_tiles
from taylorir.cost.timing import time_calls
from taylorir.rows import provenance, write_rows

HEAD_DIMS = (4, 8, 10, 15, 16, 24, 30, 32, 48, 64)
SHARES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4)
"""Of N0: the numbers of tokens that are timed."""


def crossover_rows(
    head_dims: Sequence[int] = HEAD_DIMS, *, seconds: float = 0.3, seed: int = 0
) -> pd.DataFrame:
    """Where both forms take the same time, forward and backward together, by turns on the same inputs.

    Args:
        head_dims: widths d.
        seconds: to time each call for.
        seed: of the inputs.

    Returns:
        One row a width, without the tile unit and with it where there is one: ``head_dim``, ``tiles``,
        ``num_tokens``, the crossover, ``load``, and provenance. Between the numbers of tokens that are timed
        it is interpolated; outside of them it is the nearest.
    """
    rows = []
    for tiles in (False, True) if uses_tiles() else (False,):
        with tile_unit(tiles):
            for d in tqdm(head_dims, desc="crossovers", leave=False):
                tokens = [max(2, round(share * crossover_flops(d))) for share in SHARES]
                gains = [_gain(n, d, seconds, seed) for n in tokens]
                crossover = round(float(np.exp(np.interp(0.0, np.maximum.accumulate(gains), np.log(tokens)))))
                row = {"head_dim": d, "tiles": tiles, "num_tokens": crossover, "load": os.getloadavg()[0]}
                rows.append(row | provenance(seed=seed))
    return pd.DataFrame(rows)


def _gain(num_tokens: int, head_dim: int, seconds: float, seed: int) -> float:
    """Logarithm of the direct form's time over that of the efficient one."""
    generator = torch.Generator().manual_seed(seed)
    windows = max(1, 2304 // num_tokens)
    size = (windows, 6, num_tokens, head_dim)
    q, k, v, gradient = (torch.randn(size, generator=generator) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]

    def build(crossover: float):
        def call() -> object:
            y = taylor_attention(*inputs, crossover=crossover, backend="cpp")
            return torch.autograd.grad(y, inputs, gradient)

        return lambda: call

    direct, efficient = time_calls([build(float("inf")), build(0.0)], seconds=seconds)
    return float(np.log(direct.latency_ms / efficient.latency_ms))


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument(
        "--out", type=Path, default=CROSSOVERS, help="CSV to write; default: the table in use"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = crossover_rows()
    write_rows(arguments.out, rows)
    print(rows[["head_dim", "tiles", "num_tokens"]].to_string(index=False))


if __name__ == "__main__":
    main()
