"""What each choice of the evaluation protocol is worth: bicubic, measured with one choice changed at a time.

The protocol is that of :func:`taylorir.evaluation.evaluate`. A choice changes what is compared (the crop, the
LR image) or how (the border, the channel, the rounding); all else stays.

``python -m taylorir.experiments.protocol_choices --out data/results/tiles.csv`` measures what tiles change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image
from torch import nn

from taylorir.datasets import NamedImage, image_files, iterate_images, load_images
from taylorir.evaluation import default_overlap, plan_axis, super_resolve, window_pixels
from taylorir.images import imresize, mod_crop, open_picture, psnr, rgb_to_y, ssim
from taylorir.networks import load_network
from taylorir.rows import provenance, write_rows

STANDARD = "standard"
FULL_RANGE_LUMA = (0.299, 0.587, 0.114)

CHOICES: dict[str, str] = {
    STANDARD: "the protocol",
    "no_shave": "border not shaved",
    "rounded_luma": "luma rounded to 8 bits",
    "full_range_luma": "luma of JPEG and OpenCV: 0..255 instead of 16..235",
    "rgb": "all three channels instead of luma",
    "crop_12": "HR cropped to a multiple of 12 for every scale",
    "float_lr": "LR never rounded",
    "rounded_once": "LR rounded once, after both passes",
    "no_antialias": "LR without antialiasing",
    "pillow_lr": "LR by Pillow's bicubic",
    "single_channel": "the older protocol: 8-bit luma is shrunk and enlarged, LR not rounded",
    "own_grey": "greyscale images on their own grey values, 0..255",
}


def measure_choices(
    dataset: str | Iterable[NamedImage],
    upscale: int,
    *,
    choices: Iterable[str] = tuple(CHOICES),
    data_root: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """PSNR and SSIM of bicubic with each choice.

    Args:
        dataset: a set's name, or images.
        upscale: s.
        choices: keys of ``CHOICES``.
        data_root: folder of the sets.

    Returns:
        A row a choice and image: choice, set, image, upscale, psnr, ssim, and the provenance columns. The
        choice ``own_grey`` has a row only for images whose three channels are equal.

    Raises:
        ValueError: an unknown choice or set.
        FileNotFoundError: the set is not there.
    """
    choices = list(choices)
    for choice in choices:
        if choice not in CHOICES:
            raise ValueError(f"choice must be one of {', '.join(CHOICES)}, not {choice!r}")
    images = iterate_images(dataset, data_root) if isinstance(dataset, str) else dataset
    set_name = dataset if isinstance(dataset, str) else "images"
    where = provenance(device="cpu", dtype="float64")
    rows = []
    for item in images:
        grey = bool((item.image == item.image[..., :1]).all())
        for choice in choices:
            if choice == "own_grey" and not grey:
                continue
            db, similarity = _measure(item.image, upscale, choice)
            row = {"choice": choice, "set": set_name, "image": item.name, "upscale": upscale}
            rows.append(row | {"psnr": db, "ssim": similarity} | where)
    return pd.DataFrame(rows)


def single_channel_images(dataset: str, data_root: str | os.PathLike[str] | None = None) -> list[str]:
    """Names of the images of a set that their files store as greyscale."""
    return [file.stem for file in image_files(dataset, data_root) if open_picture(file).pixels.shape[2] == 1]


def choice_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean change by choice against the standard, over the images that have both.

    Args:
        rows: of :func:`measure_choices`.

    Returns:
        Columns set, upscale, choice, meaning, delta_db, delta_ssim; in the order of ``CHOICES``.
    """
    keys = ["set", "image", "upscale"]
    standard = rows[rows.choice == STANDARD].set_index(keys)[["psnr", "ssim"]].add_suffix("_standard")
    changed = rows[(rows.choice != STANDARD) & (rows.choice != "own_grey")].join(standard, on=keys)
    changed = changed.assign(
        delta_db=changed.psnr - changed.psnr_standard, delta_ssim=changed.ssim - changed.ssim_standard
    )
    means = (
        changed.groupby(["set", "upscale", "choice"], sort=False)[["delta_db", "delta_ssim"]]
        .mean()
        .reset_index()
    )
    means.insert(3, "meaning", means.choice.map(CHOICES))
    order = {choice: i for i, choice in enumerate(CHOICES)}
    return means.sort_values(
        ["set", "upscale", "choice"], key=lambda c: c.map(order) if c.name == "choice" else c
    )


def mean_with_own_grey(rows: pd.DataFrame, stored_grey: Iterable[str]) -> pd.DataFrame:
    """Set means of the standard, with the images in ``stored_grey`` measured on their own grey values.

    Args:
        rows: of :func:`measure_choices`, with the choices ``standard`` and ``own_grey``.
        stored_grey: names of images.

    Returns:
        Columns set, upscale, psnr_standard, psnr_own_grey, ssim_standard, ssim_own_grey.

    Raises:
        ValueError: one of the images has no row ``own_grey``.
    """
    stored_grey = set(stored_grey)
    own = rows[(rows.choice == "own_grey") & rows.image.isin(stored_grey)]
    lacking = stored_grey - set(own.image)
    if lacking:
        raise ValueError(f"there is no row 'own_grey' for {', '.join(sorted(lacking))}")
    standard = rows[rows.choice == STANDARD]
    kept = pd.concat([standard[~standard.image.isin(stored_grey)], own])
    keys, values = ["set", "upscale"], ["psnr", "ssim"]
    means = standard.groupby(keys)[values].mean().add_suffix("_standard")
    return means.join(kept.groupby(keys)[values].mean().add_suffix("_own_grey")).reset_index()


def _measure(image: np.ndarray, upscale: int, choice: str) -> tuple[float, float]:
    """PSNR and SSIM of bicubic on one image, uint8 RGB, under one choice."""
    hr = mod_crop(image, 12 if choice == "crop_12" else upscale)
    border = 0 if choice == "no_shave" else upscale
    if choice == "single_channel":
        return _single_channel(np.rint(rgb_to_y(hr)), upscale)
    if choice == "own_grey":
        hr = hr[..., 0]
    sr = imresize(_shrink(hr, upscale, choice), float(upscale))
    if sr.dtype != np.uint8:
        sr = _to_8_bits(sr)
    if choice in ("rounded_luma", "full_range_luma"):
        convert = _full_range if choice == "full_range_luma" else lambda x: np.rint(rgb_to_y(x))
        return _compare(convert(sr), convert(hr), border)
    y_channel = choice != "rgb"
    return (
        psnr(sr, hr, crop_border=border, y_channel=y_channel),
        ssim(sr, hr, crop_border=border, y_channel=y_channel),
    )


def _shrink(hr: np.ndarray, upscale: int, choice: str) -> np.ndarray:
    if choice == "float_lr":
        return imresize(hr.astype(np.float64), 1 / upscale)
    if choice == "rounded_once":
        return _to_8_bits(imresize(hr.astype(np.float64), 1 / upscale))
    if choice == "no_antialias":
        return imresize(hr, 1 / upscale, antialias=False)
    if choice == "pillow_lr":
        height, width = hr.shape[0] // upscale, hr.shape[1] // upscale
        return np.asarray(Image.fromarray(hr).resize((width, height), Image.Resampling.BICUBIC))
    return imresize(hr, 1 / upscale)


def _single_channel(luma: np.ndarray, upscale: int) -> tuple[float, float]:
    sr = _to_8_bits(imresize(imresize(luma, 1 / upscale), float(upscale)))
    return _compare(sr, luma, upscale)


def _full_range(image: np.ndarray) -> np.ndarray:
    return np.rint(image.astype(np.float64) @ np.array(FULL_RANGE_LUMA))


def _compare(sr: np.ndarray, hr: np.ndarray, border: int) -> tuple[float, float]:
    """Of two single channels that hold whole numbers in 0..255."""
    sr, hr = sr.astype(np.uint8), hr.astype(np.uint8)
    return psnr(sr, hr, crop_border=border), ssim(sr, hr, crop_border=border)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def measure_tiling(
    model: nn.Module,
    name: str,
    lr: np.ndarray,
    settings: Iterable[tuple[int, int]],
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """How far tiled results are from the untiled one, and whether the difference gathers at the seams.

    Args:
        model: a network.
        name: what to write in the column ``model``.
        lr: uint8 ``[H, W, 3]``.
        settings: pairs of tile side and overlap, in LR pixels.
        progress: show a bar over the tiles.

    Returns:
        A row a setting: model, height, width, tile, overlap (as asked), psnr (dB, all channels, of tiled
            against untiled), near_border and elsewhere (mean absolute difference in levels of 255, within 4
            output pixels of a tile's border inside the image and outside of that), and the provenance
            columns.
    """
    upscale, window = model.config.upscale, window_pixels(model)
    whole = super_resolve(model, lr)
    where = provenance(device=next(model.parameters()).device)
    rows = []
    for tile, overlap in settings:
        tiled = super_resolve(model, lr, tile=tile, overlap=overlap, progress=progress)
        difference = np.abs(tiled.astype(int) - whole.astype(int)).mean(axis=2)
        near = np.zeros(difference.shape, bool)
        for side, mask in zip(lr.shape[:2], (near, near.T), strict=True):
            axis = plan_axis(-(-side // window) * window, tile, overlap, window, upscale)
            for border in (*axis.starts[1:], *(start + axis.size for start in axis.starts[:-1])):
                mask[max(border * upscale - 4, 0) : border * upscale + 4] = True
        rows.append(
            {"model": name, "height": lr.shape[0], "width": lr.shape[1], "tile": tile, "overlap": overlap}
            | {"psnr": psnr(tiled, whole, y_channel=False)}
            | {"near_border": difference[near].mean(), "elsewhere": difference[~near].mean()}
            | where
        )
    return pd.DataFrame(rows)


TILES = {"swinir_mini_x2_s0": 192, "taylorswinir_mini_x2_s0": 288}
"""Weights, and a tile side on their grid of windows, smaller than 512."""


def _main(out: Annotated[Path, typer.Option(help="CSV to write.")]) -> None:
    """Tiled against untiled on the 512 x 512 sample image: an overlap of a window, and the default."""
    lr = load_images("samples_held_out")[0].image
    rows = []
    for name, tile in TILES.items():
        model = load_network(name)
        overlaps = (window_pixels(model), default_overlap(model))
        rows.append(measure_tiling(model, name, lr, [(tile, overlap) for overlap in overlaps], progress=True))
    write_rows(out, pd.concat(rows))


if __name__ == "__main__":
    typer.run(_main)
