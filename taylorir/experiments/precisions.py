"""What 16 bits change in the images of trained networks, and in their time: one row an image and precision.

``python -m taylorir.experiments.precisions WEIGHTS... --dataset Set5 --data-root DIR --out
data/results/precisions.csv``
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import nn
from tqdm import tqdm

from taylorir.evaluation import evaluate
from taylorir.networks import load_network
from taylorir.rows import PROVENANCE_COLUMNS, write_rows

PRECISIONS = ("float32", "bfloat16")
_COLUMNS = ("model", "set", "image", "height", "width", "upscale", "psnr_y", "ssim_y", "seconds")


def precision_rows(
    networks: Mapping[str, nn.Module],
    datasets: Iterable[str],
    data_root: str | Path | None = None,
    precisions: Iterable[str] = PRECISIONS,
) -> pd.DataFrame:
    """Measure networks by the protocol in each precision, once before the pass that counts to warm up.

    Args:
        networks: by name, each at its own factor.
        datasets: names of sets.
        data_root: folder of the sets, see :func:`taylorir.datasets.data_root`.
        precisions: of :func:`taylorir.evaluation.super_resolve`; weights stay as they are.

    Returns:
        Columns model, set, image, height, width (HR), upscale, psnr_y (dB), ssim_y, seconds (upscaling only)
        and provenance, with the precision in ``dtype``.
    """
    frames = [
        evaluate(network, dataset, data_root=data_root, name=name, precision=precision)
        for name, network in tqdm(networks.items(), desc="networks", leave=False)
        for dataset in datasets
        for precision in precisions
        for _ in range(2)
    ][1::2]
    rows = pd.concat(frames, ignore_index=True)[[*_COLUMNS, *PROVENANCE_COLUMNS]]
    return rows.round({"psnr_y": 4, "ssim_y": 6, "seconds": 4})


def main(
    weights: Annotated[list[Path], typer.Argument(help="Weights of networks.")],
    dataset: Annotated[list[str], typer.Option(help="A set; may be repeated.")],
    out: Annotated[Path, typer.Option(help="CSV to write.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the sets.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: PyTorch's choice.")] = None,
) -> None:
    """Measure trained networks in float32 and in bfloat16."""
    if threads is not None:
        torch.set_num_threads(threads)
    networks = {path.stem: load_network(str(path)).eval() for path in weights}
    rows = precision_rows(networks, dataset, data_root)
    write_rows(out, rows)
    means = rows.pivot_table(index=["model", "set"], columns="dtype", values=["psnr_y", "seconds"])
    print(means.round(4).to_string())


if __name__ == "__main__":
    typer.run(main)
