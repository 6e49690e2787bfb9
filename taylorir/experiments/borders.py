"""What a ragged border changes in the images of trained networks: one row an image, network and border.

``python -m taylorir.experiments.borders WEIGHTS... --dataset Set5 --dataset Set14 --data-root DIR --out
data/results/borders.csv``
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from taylorir.evaluation import evaluate
from taylorir.networks import SwinIR, load_network
from taylorir.rows import PROVENANCE_COLUMNS, write_rows

BORDERS = ("reflect", "ragged")
_COLUMNS = ("model", "set", "image", "height", "width", "upscale", "window_size", "border", "made_up")
_COLUMNS += ("psnr_y", "ssim_y")


def border_rows(
    networks: Mapping[str, SwinIR], datasets: Iterable[str], data_root: str | Path | None = None
) -> pd.DataFrame:
    """Measure networks by the protocol with either border; the networks are left as they were.

    Args:
        networks: by name, each at its own factor.
        datasets: names of sets.
        data_root: folder of the sets, see :func:`taylorir.datasets.data_root`.

    Returns:
        Columns model, set, image, height, width (HR), upscale, window_size, border, made_up (tokens that are
        not of the image, over those that are), psnr_y, ssim_y and provenance.
    """
    frames = []
    for name, network in tqdm(networks.items(), desc="networks", leave=False):
        before = network.config
        for border in BORDERS:
            network.config = config = dataclasses.replace(before, border=border)
            for dataset in datasets:
                rows = evaluate(network, dataset, data_root=data_root, name=name)
                rows["border"], rows["window_size"] = border, config.window_size
                height, width = rows["height"] // config.upscale, rows["width"] // config.upscale
                padded = [-(-side // config.multiple) * config.multiple for side in (height, width)]
                rows["made_up"] = padded[0] * padded[1] / (height * width) - 1
                frames.append(rows)
        network.config = before
    rows = pd.concat(frames, ignore_index=True)[[*_COLUMNS, *PROVENANCE_COLUMNS]]
    return rows.round({"made_up": 4, "psnr_y": 4, "ssim_y": 6})


def main(
    weights: Annotated[list[Path], typer.Argument(help="Weights of TaylorSwinIR or SwinIR.")],
    dataset: Annotated[list[str], typer.Option(help="A set; may be repeated.")],
    out: Annotated[Path, typer.Option(help="CSV to write.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the sets.")] = None,
) -> None:
    """Measure trained networks with padded and with ragged borders."""
    networks = {path.stem: load_network(str(path)).eval() for path in weights}
    rows = border_rows(networks, dataset, data_root)
    write_rows(out, rows)
    means = rows.pivot_table(index=["model", "set"], columns="border", values="psnr_y")
    means["difference"] = means["ragged"] - means["reflect"]
    print(means.round(4).to_string())


if __name__ == "__main__":
    typer.run(main)
