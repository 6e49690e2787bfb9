"""What networks of several patch sizes make of few crops: can they not fit, not carry over, or not yet?

A network with tokens of p x p pixels ends at the level of a linear filter when it trains on a stream of fresh
crops. Here each trains on the same few crops again and again. Where it fits these, it can express what is
asked; where images that it never saw gain nothing from it, it has learnt those crops by heart; where it does
not even fit the crops, it learns too slowly.

``python -m taylorir.experiments.few_crops --out data/results/few_crops.csv``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from taylorir.datasets import NamedImage, sample_split
from taylorir.experiments.protocol import find_run
from taylorir.rows import provenance, write_rows
from taylorir.training import HeldOut, train

#: Side of a crop in HR pixels, and of a window in LR pixels: a crop is one window.
SIDE = 96
WINDOW_PIXELS = 48
LEARNING_RATE = 2e-3

#: What the command does.
COUNTS = (1, 8, 64, 512)
PATCH_SIZES = (0, 1, 2, 4, 8)
STEPS = 1500
SEEDS = (0, 1)


def few_crops(count: int, seed: int) -> list[NamedImage]:
    """HR crops [96, 96, 3] of the sample images for training, in turn, at places drawn by the seed."""
    rng, images = np.random.default_rng(seed), sample_split()[0]
    crops = []
    for index in range(count):
        image = images[index % len(images)].image
        top, left = (int(rng.integers(side - SIDE + 1)) for side in image.shape[:2])
        crops.append(NamedImage(f"crop {index}", image[top : top + SIDE, left : left + SIDE]))
    return crops


def few_crops_rows(
    counts: Sequence[int], patch_sizes: Sequence[int], *, steps: int, seeds: Sequence[int]
) -> pd.DataFrame:
    """Train mini TaylorSwinIR x2 on few crops, and the network without a transformer beside it.

    All train alike: on whole crops, flipped and turned, one a step.

    Args:
        counts: numbers of crops.
        patch_sizes: p of the networks; 0 is the network without a transformer.
        steps: of each training.
        seeds: of the crops and of the training.

    Returns:
        Columns crops, patch_size, steps, fitted and unseen (PSNR-Y in dB on those crops, and on the held-out
        sample images), parameters, cpu_seconds, seed and provenance.
    """
    recipe = find_run("mini", "taylorswinir_mini_x2_s0").config
    linear = find_run("mini", "linear_mini_x2_s0").config.model
    rows = []
    todo = [(seed, count, side) for seed in seeds for count in counts for side in patch_sizes]
    for seed, count, side in tqdm(todo, desc="trainings", leave=False):
        model = linear
        if side:
            model = replace(recipe.model, patch_size=side, window_size=WINDOW_PIXELS // side)
        config = replace(
            recipe, model=model, seed=seed, num_iters=steps, eval_every=steps, learning_rate=LEARNING_RATE
        )
        crops = few_crops(count, seed)
        result = train(config, images=crops, progress=False)
        row = {
            "crops": count,
            "patch_size": side,
            "steps": steps,
            "fitted": round(HeldOut(crops, model.upscale).psnr(result.model), 4),
            "unseen": round(float(result.curve.psnr_y.iloc[-1]), 4),
            "parameters": sum(p.numel() for p in result.model.parameters()),
            "cpu_seconds": round(float(result.curve.cpu_seconds.iloc[-1]), 2),
            **provenance(device="cpu", dtype="float32", seed=seed),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def gains_over_floor(rows: pd.DataFrame) -> pd.DataFrame:
    """What a transformer gains: the rows of :func:`few_crops_rows` with one, less those without, in dB.

    Returns:
        The rows of patch sizes from 1, with fitted and unseen as differences at equal crops and seed.
    """
    keys, columns = ["crops", "seed"], ["fitted", "unseen"]
    gains = rows[rows["patch_size"] > 0].set_index(keys)
    floor = rows[rows["patch_size"] == 0].set_index(keys)[columns]
    gains[columns] -= floor.loc[gains.index].to_numpy()
    return gains.reset_index()


def main(out: Annotated[Path, typer.Option(help="CSV file to write.")]) -> None:
    """Train on few crops, and write a row a training."""
    rows = few_crops_rows(COUNTS, PATCH_SIZES, steps=STEPS, seeds=SEEDS)
    write_rows(out, rows)


if __name__ == "__main__":
    typer.run(main)
