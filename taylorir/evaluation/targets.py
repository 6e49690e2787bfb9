"""Where results go: what is refused before the work rather than after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from taylorir.images import WRITABLE_SUFFIXES

LARGEST_SIDE = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}
"""Pixels, as far as the format (WebP) or its library (libjpeg) goes; the other formats end much later."""


def check_source(source: Path) -> None:
    """Refuse what is no file before it is opened: a pipe would make the program wait for its other end.

    Raises:
        FileNotFoundError: there is nothing, or a link to nothing.
        ValueError: a folder, a pipe, a device.
    """
    if source.is_file():
        return
    if source.is_dir():
        raise ValueError(f"{source} is a folder, expected an image file")
    if source.exists():
        raise ValueError(f"{source} is a pipe or a device, expected an image file")
    raise FileNotFoundError(
        f"{source} is a link to nothing" if source.is_symlink() else f"no such file: {source}"
    )


def check_target(
    source: Path, target: Path, *, size: tuple[int, int] | None = None, transparent: bool = False
) -> None:
    """Refuse a target that cannot take the result.

    Args:
        source: the picture.
        target: where its result shall go.
        size: of the result, (width, height), where it is known.
        transparent: whether the result is.

    Raises:
        ValueError: an unknown suffix, the source itself, no file, or a format that cannot hold the result.
        OSError: it cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"cannot write {target}: the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}")
    if transparent and suffix in (".jpg", ".jpeg"):
        raise ValueError(f"cannot write {target}: JPEG has no transparency; use .png or .webp")
    if size is not None and max(size) > LARGEST_SIDE.get(suffix, max(size)):
        raise ValueError(
            f"cannot write {target}: the result has {size[0]}x{size[1]} pixels, "
            f"{suffix} at most {LARGEST_SIDE[suffix]:,} a side; use .png"
        )
    check_writable(target)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the picture itself; give another name")


def check_writable(path: Path) -> None:
    """Whether a file can be made at ``path``: by one without a name in its folder, so nothing is to be seen.

    Raises:
        OSError: it cannot; one line says why.
        ValueError: something that is not a file is there.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # says so where the name is too long
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if path.exists() and not path.is_file():
            raise ValueError(f"cannot write {path}: it is a pipe or a device")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}") from None
