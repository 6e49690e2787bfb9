"""Measure a model on a set of images by the protocol of the field: one row an image."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import pandas as pd
from torch import nn
from tqdm import tqdm

from taylorir.datasets import NamedImage, image_files, iterate_images, make_pair
from taylorir.evaluation.super_resolution import (
    check_upscale,
    default_overlap,
    super_resolve,
)
from taylorir.images import check_degradation, psnr, shaved_border, ssim
from taylorir.networks import image_channels
from taylorir.rows import provenance


def evaluate(
    model: nn.Module | str,
    dataset: str | Iterable[NamedImage],
    upscale: int | None = None,
    *,
    data_root: str | os.PathLike[str] | None = None,
    name: str | None = None,
    degradation: str = "none",
    tile: int | str | None = None,
    overlap: int | None = None,
    self_ensemble: bool = False,
    padding: str = "reflect",
    memory: int | str | None = None,
    precision: str = "float32",
    seed: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """PSNR and SSIM of a model on a set of images, by the protocol of the field.

    HR is cropped to a multiple of s, LR is made by MATLAB's bicubic on 8 bits, the result is rounded to 8
    bits, both are turned to BT.601 luma, and s pixels are shaved from each border. Where s is 1 (denoising,
    JPEG artefacts) the LR image is the degraded HR image, and nothing is shaved. A network for grey images
    is measured on grey values, 0..255.

    Args:
        model: ``"bicubic"`` or a network.
        dataset: the name of a set (see :func:`taylorir.datasets.load_images`), or images.
        upscale: s; may be left out for a network that knows its own.
        data_root: folder of the sets.
        name: what to write in the column ``model``.
        degradation: of the LR images, by a name of :func:`taylorir.images.degrade` (``noise25``, ``jpeg10``).
        tile: see :func:`taylorir.evaluation.super_resolve`, as for the arguments that follow.
        overlap: see ``tile``.
        self_ensemble: see ``tile``.
        padding: see ``tile``.
        memory: see ``tile``.
        precision: see ``tile``.
        seed: of the training run that the model comes from, for the provenance.
        progress: show a bar over the images.

    Returns:
        A row an image: model, set, image, height, width (of the cropped HR), upscale, degradation, psnr_y
        (dB), ssim_y, psnr_rgb (dB, over all channels, as papers on colour denoising have it), seconds
        (upscaling only), padding, tile, overlap, self_ensemble, and the provenance columns.

    Raises:
        ValueError: an unknown set or option, an image too small to be measured, or nothing to be restored.
        FileNotFoundError: the set's folder is missing or empty.
    """
    upscale = check_upscale(model, upscale)
    check_degradation(degradation)
    if upscale == 1 and degradation == "none":
        raise ValueError("degradation must be given where nothing is enlarged, such as 'noise25' or 'jpeg10'")
    if isinstance(dataset, str):
        set_name, images = dataset, iterate_images(dataset, data_root)
        total = len(image_files(dataset, data_root))
    else:
        images = list(dataset)
        set_name, total = "images", len(images)
    if name is None:
        name = model if isinstance(model, str) else type(model).__name__.lower()
    device = "cpu" if isinstance(model, str) else next((p.device for p in model.parameters()), "cpu")
    dtype = "uint8" if isinstance(model, str) else precision
    where = provenance(device=device, dtype=dtype, seed=seed)
    overlap = default_overlap(model) if overlap is None else overlap
    tiles = {"tile": "none" if tile is None else str(tile), "overlap": 0 if tile is None else overlap}
    if isinstance(model, str):
        tiles, padding, self_ensemble = {"tile": "none", "overlap": 0}, "none", False
    rows = []
    for item in tqdm(
        images, total=total, desc=f"{name} {set_name} x{upscale}", disable=not progress, leave=False
    ):
        try:
            lr, hr = make_pair(item.image, upscale, degradation=degradation, grey=image_channels(model) == 1)
            start = time.perf_counter()
            sr = super_resolve(
                model,
                lr,
                upscale=upscale,
                tile=tile,
                overlap=overlap,
                self_ensemble=self_ensemble,
                padding="reflect" if isinstance(model, str) else padding,
                memory=memory,
                precision=precision,
            )
            seconds = time.perf_counter() - start
            border = shaved_border(upscale)
            measured = {
                "psnr_y": psnr(sr, hr, crop_border=border),
                "ssim_y": ssim(sr, hr, crop_border=border),
                "psnr_rgb": psnr(sr, hr, crop_border=border, y_channel=False),
            }
        except ValueError as error:
            raise ValueError(f"{set_name}/{item.name}: {error}") from None
        row = {
            "model": name,
            "set": set_name,
            "image": item.name,
            "height": hr.shape[0],
            "width": hr.shape[1],
        }
        row |= {"upscale": upscale, "degradation": degradation, **measured, "seconds": round(seconds, 4)}
        rows.append(row | {"padding": padding, **tiles, "self_ensemble": self_ensemble} | where)
    return pd.DataFrame(rows)
