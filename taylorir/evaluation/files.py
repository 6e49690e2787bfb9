"""Upscale your own pictures: transparency, greyscale and colour profile are kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from torch import nn

from taylorir.evaluation.super_resolution import super_resolve
from taylorir.evaluation.targets import check_source, check_target
from taylorir.images import bleed_colours, imresize, open_picture, to_8_bits, write_image

SMALLEST_SIDE = 8


def upscale_file(
    model: nn.Module | str,
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    upscale: int,
    tile: int | str | None = "auto",
    overlap: int | None = None,
    memory: int | str | None = None,
    self_ensemble: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> list[str]:
    """Upscale one picture.

    The EXIF orientation is applied and no other metadata is kept. Greyscale stays greyscale (the network sees
    it as RGB, and the three channels that it returns are averaged). Transparency is upscaled by bicubic, the
    colours beneath it by the model; where nothing is to be seen, it sees the colours around it. A colour
    profile is embedded again: the network sees the values as they are in the file. Samples of more than 8
    bits have 16 in a PNG. What is lost (depth in WebP and JPEG, CMYK, further frames) is said in the notes.

    Args:
        model: ``"bicubic"`` or a network.
        source: the picture.
        target: where the result goes; the suffix (.png, .webp, .jpg) sets the format.
        upscale: s.
        tile: as in :func:`taylorir.evaluation.super_resolve`, and so are the arguments that follow.
        overlap: see ``tile``.
        memory: see ``tile``.
        self_ensemble: see ``tile``.
        precision: see ``tile``.
        progress: show a bar over the tiles.

    Returns:
        Notes: what of the file the result does not hold.

    Raises:
        FileNotFoundError: no such picture.
        ValueError: not a picture, damaged, smaller than 8 pixels, too large, or not to be held by the
            target's format.
        OSError: the target cannot be written; nothing is left of it then.
    """
    source, target = Path(source), Path(target)
    check_source(source)
    picture = open_picture(source)
    height, width = picture.pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{source} is {width}x{height} pixels; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    suffix = target.suffix.lower()
    size = (width * upscale, height * upscale)
    check_target(source, target, size=size, transparent=picture.alpha is not None)
    if picture.pixels.dtype == np.uint16 and suffix != ".png":
        notes = (*picture.notes, "16 bits are reduced to 8")
        picture = dataclasses.replace(picture, pixels=to_8_bits(picture.pixels), notes=notes)
    colours, alpha = picture.colours, picture.alpha
    if alpha is not None:
        colours = bleed_colours(colours, alpha)
    grey, profile, notes = picture.is_grey, picture.profile, list(picture.notes)
    del picture
    sr = super_resolve(
        model,
        colours,
        upscale=upscale,
        tile=tile,
        overlap=overlap,
        memory=memory,
        self_ensemble=self_ensemble,
        precision=precision,
        progress=progress,
    )
    del colours
    if grey:
        sr = ((sr.sum(axis=2, dtype=np.uint32) + 1) // 3).astype(sr.dtype)
    if alpha is not None:
        sr = np.dstack([sr, imresize(alpha, float(upscale))])
    write_image(target, sr, icc_profile=profile)
    return notes
