"""What one local attribution map costs: seconds and peak resident memory, each network in a fresh process.

``python -m taylorir.attribution.cost swinir_s_x4 taylorswinir_s_x4 --out data/results/attribution_cost.csv``

The networks have random weights: the cost does not depend on them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from taylorir.attribution.maps import FOLD, centre_patch, local_attribution
from taylorir.evaluation import peak_resident_memory
from taylorir.networks import build_model
from taylorir.rows import provenance, write_rows


def attribution_cost(variant: str, *, lr_size: int = 64, fold: int = FOLD, batch_size: int = 2) -> dict:
    """Time one map in this process. The peak is that of the whole process so far, PyTorch itself included.

    Args:
        variant: name of a variant.
        lr_size: side of the LR image, which is noise.
        fold, batch_size: see :func:`taylorir.attribution.local_attribution`.

    Returns:
        network, softmax_backend, lr_size, fold, batch_size, seconds, cpu_seconds, peak_resident_mib and the
        provenance.

    Raises:
        ValueError: an unknown variant.
    """
    torch.manual_seed(0)
    model = build_model(variant)
    if model.config.attention == "softmax":
        model = build_model(variant, softmax_backend="fused")
    image = torch.rand(1, 3, lr_size, lr_size)
    patch = centre_patch(lr_size, lr_size, model.config.upscale)
    clocks = time.perf_counter(), time.process_time()
    local_attribution(model, image, patch, fold=fold, batch_size=batch_size)
    seconds, cpu_seconds = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    return {
        "network": variant,
        "softmax_backend": model.config.softmax_backend if model.config.attention == "softmax" else "",
        "lr_size": lr_size,
        "fold": fold,
        "batch_size": batch_size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_resident_mib": round(peak_resident_memory() / 2**20, 1),
        **provenance(seed=0),
    }


def _main(
    variants: Annotated[list[str], typer.Argument(help="Names of variants.")],
    lr_size: Annotated[int, typer.Option(help="Side of the LR image.")] = 64,
    fold: Annotated[int, typer.Option(help="Steps of the path.")] = FOLD,
    batch_size: Annotated[int, typer.Option(help="Points of the path at once.")] = 2,
    out: Annotated[Path | None, typer.Option(help="CSV to write; printed if left out.")] = None,
    here: Annotated[bool, typer.Option("--here", hidden=True)] = False,
) -> None:
    """Time and peak memory of a local attribution map."""
    settings = {"lr_size": lr_size, "fold": fold, "batch_size": batch_size}
    if here:
        typer.echo(json.dumps([attribution_cost(variant, **settings) for variant in variants]))
        return
    rows = []
    options = [
        word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    for variant in variants:
        command = [sys.executable, "-m", "taylorir.attribution.cost", variant, *options, "--here"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"measuring {variant} failed: {done.stderr.strip()}")
        rows += json.loads(done.stdout)
    table = pd.DataFrame(rows)
    if out is None:
        typer.echo(table.to_string(index=False))
    else:
        write_rows(out, table)


if __name__ == "__main__":
    typer.run(_main)
