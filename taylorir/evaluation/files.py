"""Upscale your own pictures, one or a folder: transparency, greyscale and colour profile are kept."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from taylorir.evaluation.super_resolution import super_resolve
from taylorir.images import WRITABLE_SUFFIXES, bleed_colours, imresize, open_picture, to_8_bits, write_image
from taylorir.rows import one_line, write_atomic

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
    picture = open_picture(source)
    height, width = picture.pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{source} is {width}x{height} pixels; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    suffix = target.suffix.lower()
    if picture.alpha is not None and suffix in (".jpg", ".jpeg"):
        raise ValueError(f"cannot write {target}: JPEG has no transparency; use .png or .webp")
    check_target(source, target)
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


def check_target(source: Path, target: Path) -> None:
    """Refuse a target before the work rather than after it.

    Raises:
        ValueError: an unknown suffix, or the source itself.
        OSError: it cannot be written.
    """
    if target.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ValueError(f"cannot write {target}: the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the picture itself; give another name")
    check_writable(target)


def check_writable(path: Path) -> None:
    """Make and remove a file beside ``path``.

    Raises:
        OSError: that is not possible; one line says why.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    probe = path.with_name(f".{path.name}.writable")
    try:
        write_atomic(probe, lambda file: None)
    except OSError as error:
        raise type(error)(str(error).replace(str(probe), str(path))) from None
    probe.unlink()


def upscale_folder(
    source: str | os.PathLike,
    target: str | os.PathLike,
    upscale_one: Callable[[Path, Path], list[str]],
    *,
    suffix: str = ".png",
    report: Callable[[str], object] = print,
) -> tuple[int, dict[str, str]]:
    """Upscale every file of a folder; one that fails is noted, and the rest goes on.

    Args:
        source: its files, but for hidden ones, are taken in the order of their names; subfolders are not
            entered.
        target: made when missing. ``a.jpg`` becomes ``a.png`` there, or ``a_jpg.png`` if another file would
            take that.
        upscale_one: called with a file and its target; returns notes.
        suffix: of the results.
        report: called with a line for each file.

    Returns:
        How many succeeded, and the reason of each failure by file name.

    Raises:
        ValueError: an empty folder, an unknown suffix, or results that would replace the sources.
        OSError: the target folder cannot be made or written to.
    """
    source, target = Path(source), Path(target)
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}, not {suffix!r}")
    files = sorted(file for file in source.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ValueError(f"there is no file in {source}")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot make the folder {target}: {error.strerror}") from None
    if target.samefile(source):
        raise ValueError(f"the results would go to {source} itself; give another folder")
    check_writable(target / f"result{suffix}")
    stems = [file.stem for file in files]
    failures: dict[str, str] = {}
    for file in files:
        stem = file.stem if stems.count(file.stem) == 1 else f"{file.stem}_{file.suffix.lstrip('.')}"
        result = target / f"{stem}{suffix}"
        try:
            notes = upscale_one(file, result)
        except (ValueError, OSError, MemoryError) as error:
            failures[file.name] = one_line(error)
            report(f"{file.name}: FAILED, {failures[file.name]}")
        else:
            report(f"{file.name} -> {result}" + (f" ({'; '.join(notes)})" if notes else ""))
    return len(files) - len(failures), failures
