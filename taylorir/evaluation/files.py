"""Upscale your own pictures: transparency, greyscale and colour profile are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import nn

from taylorir.evaluation.memory_limit import give_back_freed
from taylorir.evaluation.picture import mean_channel, seen_by
from taylorir.evaluation.promise import READING, Promise, held_for
from taylorir.evaluation.super_resolution import NonFiniteError, check_upscale, super_resolved_parts
from taylorir.evaluation.targets import check_source, check_target
from taylorir.images import (
    imresize,
    open_picture,
    picture_size,
    to_8_bits,
    write_image,
)
from taylorir.networks import image_channels

SMALLEST_SIDE = 8
WIDER = {"float16": ("float16", "bfloat16", "float32"), "bfloat16": ("bfloat16", "float32")}
"""Precisions to try one after the other, where values overflow."""


def upscale_file(
    model: nn.Module | str,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    upscale: int | None = None,
    tile: int | str | None = "auto",
    overlap: int | None = None,
    memory: int | str | None = None,
    self_ensemble: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> list[str]:
    """Upscale one picture.

    The EXIF orientation is applied and no other metadata is kept. Greyscale stays greyscale (a network for
    colours sees it as RGB, and the three channels that it returns are averaged). Transparency is upscaled by
    bicubic, the colours beneath it by the model; where nothing is to be seen, it sees the colours around it.
    A colour profile is embedded again: the network sees the values as they are in the file. Samples of more
    than 8 bits have 16 in a PNG. What is lost (depth in WebP and JPEG, CMYK, further frames) is said in the
    notes.

    Args:
        model: ``"bicubic"`` or a network.
        source: the picture.
        target: where the result goes; the suffix (.png, .webp, .jpg) sets the format.
        upscale: s; None: the network's own.
        tile: as in :func:`taylorir.evaluation.super_resolve`, and so are the arguments that follow.
        overlap: see ``tile``.
        memory: see ``tile``; on the CPU it bounds all that the process holds, from the file to the file.
        self_ensemble: see ``tile``.
        precision: see ``tile``.
        progress: show a bar over the tiles.

    Returns:
        Notes: what of the file the result does not hold, and in which wider precision it was computed where
        half precision overflowed.

    Raises:
        FileNotFoundError: no such picture.
        ValueError: not a picture, damaged, smaller than 8 pixels, too large, not to be held by the target's
            format, or more memory is needed than is allowed; the work has not begun then.
        NonFiniteError: the network returned NaN or infinity, in float32 too.
        OSError: the target cannot be written; nothing is left of it then.
    """
    source, target = Path(source), Path(target)
    upscale = check_upscale(model, upscale)
    check_source(source)
    width, height = picture_size(source)
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{source} is {width}x{height} pixels; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    promise = Promise.for_picture(model, memory)
    promise.check(READING * width * height, f"reading {source}")
    picture = open_picture(source)
    height, width, channels = picture.pixels.shape
    suffix = target.suffix.lower()
    size = (width * upscale, height * upscale)
    check_target(source, target, size=size, transparent=picture.alpha is not None)
    if picture.pixels.dtype == np.uint16 and suffix != ".png":
        notes = (*picture.notes, "16 bits are reduced to 8")
        picture = dataclasses.replace(picture, pixels=to_8_bits(picture.pixels), notes=notes)
    needed = held_for(picture.pixels, upscale, suffix, bicubic=isinstance(model, str))
    promise.check(needed, f"a picture of {width}x{height} pixels")
    result = np.empty((height * upscale, width * upscale, channels), picture.pixels.dtype)
    profile, notes = picture.profile, list(picture.notes)
    alpha = None if picture.alpha is None else picture.alpha.copy()
    parts = functools.partial(
        super_resolved_parts,
        model,
        seen_by(picture, image_channels(model)),
        upscale=upscale,
        tile=tile,
        overlap=overlap,
        memory=memory,
        self_ensemble=self_ensemble,
        progress=progress,
        reserved=result.nbytes,
    )
    del picture
    used = _fill(result, parts, precision)
    del parts
    if used != precision:
        notes.append(f"{precision} gives NaN or infinity; computed in {used}")
    give_back_freed()
    if alpha is not None:
        result[..., -1] = imresize(alpha, float(upscale))
    give_back_freed()
    write_image(target, result, icc_profile=profile)
    return notes


def _fill(result: np.ndarray, parts: Callable[..., Iterator], precision: str) -> str:
    """Write what the network makes to the result, in the precision or the next wider one that holds it.

    Args:
        result: ``[sH, sW, C]``; of one or two channels the first is grey. A last one for alpha is left out.
        parts: :func:`taylorir.evaluation.super_resolution.super_resolved_parts`, given the precision.
        precision: to begin with.

    Returns:
        The precision that served.
    """

    def compute(precision: str) -> str:
        for top, left, part in parts(precision=precision):
            if result.shape[2] < 3:
                part = mean_channel(part)
            place = result[top : top + part.shape[0], left : left + part.shape[1]]
            place[..., : part.shape[2]] = part
        return precision

    *narrow, widest = WIDER.get(precision, (precision,))
    for attempt in narrow:
        with contextlib.suppress(NonFiniteError):
            return compute(attempt)
    return compute(widest)
