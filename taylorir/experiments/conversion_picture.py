"""The picture of chapter 13: under each network, the crop that loses most when softmax is swapped.

``python -m taylorir.experiments.conversion_picture book/_static/conversion.webp`` writes it from the released
network and the checkpoints of the ladder; photographs of scikit-image, which no network was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import nn

from taylorir.datasets import make_pair, sample_split
from taylorir.evaluation import super_resolve
from taylorir.experiments.gallery import Panel, crop_panels, rank_crops
from taylorir.experiments.ladder import RUNGS, UPSCALE, Ladder, folders
from taylorir.experiments.run import Places
from taylorir.networks import checkpoint_files, fit_weights, latest_checkpoint
from taylorir.report import gallery, save_figure, use_style

SIDE = 320  # HR pixels of the corner of each photograph that is looked at
CROP = 64


def networks(ladder: Ladder) -> dict[str, nn.Module]:
    """By title: the released network, swapped, at its best, and calibrated where there is a checkpoint."""
    shown = {"released": ladder.teacher, "swapped": ladder.convert(RUNGS["swapped"])}
    best = ladder.convert(RUNGS["centred_best"])
    begun = [folder for folder in folders(ladder.places, "calibrated") if checkpoint_files(folder)]
    if not begun:
        return shown | {"best temperature": best}
    checkpoints = [latest_checkpoint(folder) for folder in begun]
    fit_weights(best, checkpoints[-1].part("ema."), checkpoints[-1].path)
    steps = sum(checkpoint.record["step"] for checkpoint in checkpoints)
    return shown | {f"calibrated, {steps:,} steps": best}


def panels(shown: dict[str, nn.Module], photographs: dict[str, np.ndarray]) -> dict[str, Panel]:
    """The crop that loses most by the swap, under each network, and the truth."""
    pairs = {name: make_pair(image, UPSCALE) for name, image in photographs.items()}
    upscaled = {
        title: {name: super_resolve(model, lr, upscale=UPSCALE) for name, (lr, _) in pairs.items()}
        for title, model in shown.items()
    }
    truth = {name: hr for name, (_, hr) in pairs.items()}
    first, second, *_ = upscaled.values()
    worst = rank_crops(truth, first, second, size=CROP, border=UPSCALE).iloc[-1]
    pictures = {title: images[worst["image"]] for title, images in upscaled.items()}
    return crop_panels(pictures | {"HR": truth[worst["image"]]}, worst)


def _main(
    out: Path,
    runs: Annotated[Path, typer.Option(help="Folder of the ladder's checkpoints.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder of the rows.")] = Path("data/results"),
) -> None:
    """Write the picture."""
    use_style()
    ladder = Ladder(Places(runs=runs / "dat_light", results=results))
    photographs = {named.name: named.image[:SIDE, :SIDE] for named in sample_split()[1]}
    figure = gallery.plot_crop(panels(networks(ladder), photographs))
    figure.set_facecolor("white")
    save_figure(figure, out)


if __name__ == "__main__":
    typer.run(_main)
