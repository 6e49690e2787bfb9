"""Photographs as they were found, enlarged and scored without a reference: one row an image and model.

Nobody has the truth of such a photograph, so a score judges the result alone. What the score is worth is
measured beside it, on a set whose truth is known.

``python -m taylorir.experiments.photographs WEIGHTS... --data-root DIR --out data/results/photographs.csv``;
what is in the file is not measured again, and the smallest images come first: broken off, it leaves many.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from torch import nn

from taylorir.datasets import REAL, NamedImage, load_images, make_pair
from taylorir.evaluation import stored_record
from taylorir.experiments.growing import FILTERS, digest_of, enlarge, grow_rows, named_models
from taylorir.experiments.robustness import sharpness
from taylorir.images import niqe, psnr
from taylorir.report import Estimate, estimate, judge
from taylorir.rows import PROVENANCE_COLUMNS, WEIGHTS_FOLDER, provenance, read_rows

TRUTH = "truth"
_COLUMNS = ("set", "image", "model", "weights", "upscale", "height", "width", "niqe", "sharpness", "psnr_y")


def photograph_rows(
    models: Mapping[str, nn.Module | str],
    images: Iterable[NamedImage],
    upscale: int,
    *,
    name: str,
    truth: bool = False,
    seeds: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Enlarge each image with each model, and score the results.

    Args:
        models: networks or filters by name, as :func:`taylorir.experiments.enlarge` takes them; with
            ``truth`` maybe "truth", which scores the HR images themselves.
        images: photographs as they are; with ``truth`` HR images, which are made small by the protocol first.
        upscale: the factor.
        name: of the set.
        truth: the images are the truth: take PSNR against them.
        seeds: of the trainings of the networks, by name, for the provenance.

    Returns:
        Columns set, image, model, weights (see ``growing.digest_of``), upscale,
        height and width (of the result), niqe (see :func:`taylorir.images.niqe`), sharpness (see
        :func:`taylorir.experiments.robustness.sharpness`), psnr_y (dB; NaN without truth) and provenance.

    Raises:
        ValueError: a result is too small for NIQE.
    """
    rows = []
    for named in images:
        lr, hr = make_pair(named.image, upscale) if truth else (named.image, None)
        for model, itself in models.items():
            result = hr if model == TRUTH else enlarge(itself, lr, upscale)
            measured = truth and model != TRUTH
            rows.append(
                {
                    "set": name,
                    "image": named.name,
                    "model": model,
                    "weights": digest_of(itself),
                    "upscale": upscale,
                    "height": result.shape[0],
                    "width": result.shape[1],
                    "niqe": round(niqe(result), 4),
                    "sharpness": round(sharpness(result), 4),
                    "psnr_y": round(psnr(result, hr, crop_border=upscale), 4) if measured else np.nan,
                    **provenance(
                        dtype="uint8" if isinstance(itself, str) else "float32", seed=(seeds or {}).get(model)
                    ),
                }
            )
    return pd.DataFrame(rows, columns=[*_COLUMNS, *PROVENANCE_COLUMNS])


def compare_scores(rows: pd.DataFrame, models: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """NIQE of each kind of model minus that of each kind before it, on the same images.

    Args:
        rows: of :func:`photograph_rows`, one set and factor.
        models: names by kind, one a training; a filter as often as there are trainings. Two filters are not
            compared: there is no training that an interval could be over.

    Returns:
        Columns first, second, images, seeds, those of :class:`taylorir.report.Estimate` (second minus first;
        below zero the second is more natural by the score), p_holm (corrected over the pairs) and verdict.
    """
    scores = rows.pivot(index="image", columns="model", values="niqe")
    table = []
    for (first, before), (second, after) in combinations(models.items(), 2):
        if {*before, *after} <= {*FILTERS}:
            continue
        differences = scores[[*after]].to_numpy() - scores[[*before]].to_numpy()
        found = {"images": len(scores), "seeds": len(after), **estimate(differences)._asdict()}
        table.append({"first": first, "second": second, **found})
    return judge(pd.DataFrame(table), more="less natural", less="more natural")


def agreement(rows: pd.DataFrame, models: Mapping[str, Sequence[str]]) -> Estimate:
    """How often NIQE prefers, of two results for one image, the one that PSNR prefers; 0.5 is chance.

    Args:
        rows: of :func:`photograph_rows` with truth, one factor.
        models: names by kind, whose scores are means over its names.

    Returns:
        The share, over images and pairs of kinds; its p is of a share of 0.
    """
    niqes, psnrs = (
        np.stack([scores[[*names]].mean(axis=1) for names in models.values()], axis=1)
        for scores in (rows.pivot(index="image", columns="model", values=of) for of in ("niqe", "psnr_y"))
    )
    first, second = np.triu_indices(len(models), 1)
    return estimate((niqes[:, first] < niqes[:, second]) == (psnrs[:, first] > psnrs[:, second]))


def _one(model: str, itself: nn.Module | str, image: NamedImage, **options: Any) -> pd.DataFrame:
    return photograph_rows({model: itself}, [image], **options)


def main(
    weights: Annotated[list[str], typer.Argument(help="Names of weights of data/weights, of any factors.")],
    out: Annotated[Path, typer.Option(help="CSV file; what is in it is not measured again.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image sets.")] = None,
    known: Annotated[str, typer.Option(help="The set whose truth is known.")] = "Set14",
) -> None:
    """Score enlarged photographs whose truth nobody has, and those of a set whose truth is known."""
    networks = named_models(weights)
    seeds = {name: stored_record(WEIGHTS_FOLDER / f"{name}.safetensors")["train"]["seed"] for name in weights}
    for upscale in sorted({network.config.upscale for network in networks.values()}):
        models = {name: name for name in FILTERS}
        models |= {name: network for name, network in networks.items() if network.config.upscale == upscale}
        for name in (*REAL, known):
            measure = functools.partial(_one, upscale=upscale, name=name, truth=name == known, seeds=seeds)
            of_set = {TRUTH: TRUTH, **models} if name == known else models
            images = sorted(load_images(name, data_root), key=lambda named: named.image.size)
            same = {"set": name, "upscale": upscale}
            grow_rows(out, of_set, images, measure, same=same, progress=True)
    rows = read_rows(out.resolve())
    print(rows.groupby(["set", "upscale", "model"], sort=False)["niqe"].mean().round(2).to_string())


if __name__ == "__main__":
    typer.run(main)
