"""Super-resolution of degraded images: one row an image, degradation and model.

``python -m taylorir.experiments.robustness MODEL... --side 192 --out data/results/robustness.csv``; what is
in the file is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from torch import nn
from tqdm import tqdm

from taylorir.datasets import NamedImage, load_images
from taylorir.experiments.growing import digest_of, enlarge, grow_rows, named_models
from taylorir.images import DEGRADATIONS, degrade, mod_crop, psnr, rgb_to_y, ssim
from taylorir.report import estimate, judge
from taylorir.rows import PROVENANCE_COLUMNS, provenance


def robustness_rows(
    models: Mapping[str, nn.Module | str],
    images: Iterable[NamedImage],
    upscale: int,
    *,
    degradations: Sequence[str] = DEGRADATIONS,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure every model on every degraded image by the protocol, against the clean HR.

    Args:
        models: networks or filters by name, as :func:`taylorir.experiments.enlarge` takes them.
        images: HR images.
        upscale: the factor.
        degradations: names that :func:`taylorir.images.degrade` knows; equal LR for every model.
        seed: of the noise.
        progress: show a bar.

    Returns:
        Columns model, weights (see ``growing.digest_of``), image, degradation,
        upscale, psnr_y, ssim_y, sharpness and provenance. Sharpness needs no reference (see
        :func:`sharpness`); noise and artefacts raise it as detail does.
    """
    images = list(images)
    digests = {name: digest_of(model) for name, model in models.items()}
    rows = []
    total = len(images) * len(degradations) * len(models)
    with tqdm(total=total, desc="degraded images", disable=not progress, leave=False) as bar:
        for named in images:
            hr = mod_crop(named.image, upscale)
            for name in degradations:
                lr = degrade(hr, upscale, name, seed=seed)
                for model_name, model in models.items():
                    sr = enlarge(model, lr, upscale)
                    rows.append(
                        {
                            "model": model_name,
                            "weights": digests[model_name],
                            "image": named.name,
                            "degradation": name,
                            "upscale": upscale,
                            "psnr_y": round(psnr(sr, hr, crop_border=upscale), 4),
                            "ssim_y": round(ssim(sr, hr, crop_border=upscale), 6),
                            "sharpness": round(sharpness(sr), 4),
                            **provenance(seed=seed),
                        }
                    )
                    bar.update()
    columns = ["model", "weights", "image", "degradation", "upscale", "psnr_y", "ssim_y", "sharpness"]
    return pd.DataFrame(rows, columns=[*columns, *PROVENANCE_COLUMNS])


def sharpness(image: np.ndarray) -> float:
    """Mean length of the luma's gradient by forward differences, in grey levels a pixel.

    Args:
        image: uint8 ``[H, W, 3]``, at least 2x2.
    """
    luma = rgb_to_y(image)
    return float(np.hypot(np.diff(luma, axis=0)[:, :-1], np.diff(luma, axis=1)[:-1]).mean())


def paired_gain(
    rows: pd.DataFrame,
    first: Sequence[str],
    second: Sequence[str],
    *,
    floor: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """PSNR-Y of ``second`` minus ``first`` on the same images, by degradation, judged over seeds and images.

    Args:
        rows: of :func:`robustness_rows`.
        first: models, one a seed; a model without seeds as often as there are seeds.
        second: as many, in the same order.
        floor: models by what they are called, as a filter, or networks without a transformer, one a seed.
            Where one of both sides is on average below the best of these, the degradation is not judged.

    Returns:
        Columns degradation, images, seeds, those of :class:`taylorir.report.Estimate` (dB), barred,
        p_holm (corrected over the degradations) and verdict (see :func:`taylorir.report.judge`).

    Raises:
        ValueError: the numbers of models differ.
    """
    if len(first) != len(second):
        raise ValueError(f"first and second must be as many, got {len(first)} and {len(second)}")
    table = []
    for degradation, some in rows.groupby("degradation", sort=False):
        psnr_y = some.pivot(index="image", columns="model", values="psnr_y")
        sides = [psnr_y[[*names]].to_numpy() for names in (first, second)]
        least = {name: psnr_y[[*models]].to_numpy().mean() for name, models in (floor or {}).items()}
        best = max(least, key=least.get, default="")
        below = sum(side.mean() < least[best] for side in sides) if best else 0
        table.append(
            {
                "degradation": degradation,
                "images": len(psnr_y),
                "seeds": len(first),
                **estimate(sides[1] - sides[0])._asdict(),
                "barred": f"{['', 'one', 'both'][below]} below {best}: not judged" if below else "",
            }
        )
    return judge(pd.DataFrame(table))


def _main(
    models: Annotated[list[str], typer.Argument(help="bicubic, lanczos, names of weights, or checkpoints.")],
    out: Annotated[Path, typer.Option(help="CSV file; what is in it is not measured again.")],
    dataset: Annotated[str, typer.Option(help="The image set.")] = "samples",
    upscale: Annotated[int, typer.Option(help="The factor.")] = 2,
    side: Annotated[int, typer.Option(help="Only the upper left square of so many HR pixels; 0: all.")] = 0,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image sets.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Measure models on degraded images."""
    same = {"set": dataset, "upscale": upscale, "side": side, "seed": seed}
    images = [
        NamedImage(image.name, image.image[: side or None, : side or None])
        for image in load_images(dataset, data_root)
    ]

    def measure(name: str, model: nn.Module | str, image: NamedImage) -> pd.DataFrame:
        return robustness_rows({name: model}, [image], upscale, seed=seed).assign(set=dataset, side=side)

    grow_rows(out, named_models(models), images, measure, same=same, progress=True)


if __name__ == "__main__":
    typer.run(_main)
