"""Samples of more than 8 bits, each scaled from its own range to 0..255 and rounded.

Of 16-bit colour Pillow keeps the upper byte of a sample. The lower one comes from a second pass, in which the
bytes are said to be in the other order. Shape legend: H height, W width, C channels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from PIL import ImageFile

from taylorir.images.tiff import TiffReader

_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def deep_pixels(
    picture: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]
) -> tuple[int, np.ndarray | None]:
    """Pixels of a picture whose samples do not have 8 bits in the file.

    Args:
        picture: its header is read, its pixels are not.
        reopen: reads the header again.

    Returns:
        Bits of a sample, and uint8 ``[H, W]`` or ``[H, W, C]``; None where Pillow's own values are right.
    """
    if picture.format == "PPM":
        return _portable_pixels(picture)
    if picture.format not in ("PNG", "TIFF"):
        return 8, None
    if picture.mode.startswith("I"):
        return _grey_pixels(picture)
    args = picture.tile[0].args
    rawmode = args if isinstance(args, str) else args[0]
    if ";16" in rawmode or getattr(picture, "grey_and_alpha", False):
        return 16, _colour_pixels(picture, rawmode, reopen)
    if rawmode in ("L;2", "L;4") and "transparency" in picture.info:  # Pillow scales the samples alone
        picture.info["transparency"] *= 85 if rawmode == "L;2" else 17
    return 8, None


def _scaled(samples: np.ndarray, largest: int) -> np.ndarray:
    return ((np.minimum(samples, largest).astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _portable_pixels(picture: ImageFile.ImageFile) -> tuple[int, np.ndarray | None]:
    codec, _, offset, args = picture.tile[0]
    largest = 65535 if picture.mode == "I" else 255
    if codec.startswith("ppm") and isinstance(args, tuple):
        largest = args[-1]
    if codec == "ppm":  # binary; Pillow's decoder takes microseconds a sample
        bands = len(picture.getbands())
        kind = np.dtype(">u2" if largest > 255 else "u1")
        picture.fp.seek(offset)
        content = picture.fp.read(picture.width * picture.height * bands * kind.itemsize)
        samples = np.frombuffer(content, kind).reshape(picture.height, picture.width, bands)
        return largest.bit_length(), _scaled(samples[..., 0] if bands == 1 else samples, largest)
    return largest.bit_length(), _scaled(np.asarray(picture), 65535) if picture.mode == "I" else None


def _grey_pixels(picture: ImageFile.ImageFile) -> tuple[int, np.ndarray]:
    bits, inverted = (picture.bits, picture.white_is_zero) if isinstance(picture, TiffReader) else (16, False)
    samples = np.asarray(picture)
    grey = _scaled(samples, 2**bits - 1)
    if inverted:
        grey = 255 - grey
    transparent = picture.info.get("transparency")
    if transparent is not None:
        grey = np.dstack([grey, _opaque(samples != transparent)])
    return bits, grey


def _opaque(visible: np.ndarray) -> np.ndarray:
    return np.where(visible, np.uint8(255), np.uint8(0))


def _colour_pixels(
    picture: ImageFile.ImageFile, rawmode: str, reopen: Callable[[], ImageFile.ImageFile]
) -> np.ndarray:
    transparent = picture.info.get("transparency")
    upper, lower = _bytes(picture, rawmode, reopen)
    if rawmode.startswith("RGBa"):
        pixels = _unpremultiplied(upper, lower)
    else:
        pixels = _rounded(upper, lower)
    if getattr(picture, "white_is_zero", False):
        pixels[..., 0] = 255 - pixels[..., 0]
    if transparent is not None:
        colour = np.array(transparent)
        visible = ((upper != colour >> 8) | (lower != colour & 255)).any(axis=2)
        pixels = np.dstack([pixels, _opaque(visible)])
    return pixels


def _bytes(
    picture: ImageFile.ImageFile, rawmode: str, reopen: Callable[[], ImageFile.ImageFile]
) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower bytes of 16-bit samples, both uint8 ``[H, W, C]``."""
    if rawmode.startswith("LA") or getattr(picture, "grey_and_alpha", False):
        _relabel(picture, lambda _: "RGBA")  # four bytes a pixel, whatever they mean
        pixels = np.asarray(picture)
        upper = int(getattr(picture, "little_endian", False))
        return pixels[..., upper::2], pixels[..., 1 - upper :: 2]
    second = reopen()
    _relabel(picture, lambda raw: raw.replace("RGBa", "RGBA"))
    _relabel(second, lambda raw: raw.replace("RGBa", "RGBA")[:-1] + _OTHER_ORDER[raw[-1]])
    return np.asarray(picture), np.asarray(second)


def _relabel(picture: ImageFile.ImageFile, rename: Callable[[str], str]) -> None:
    """Tell the decoder that the bytes in the file mean something else."""
    picture.tile = [
        tile._replace(
            args=rename(tile.args) if isinstance(tile.args, str) else (rename(tile.args[0]), *tile.args[1:])
        )
        for tile in picture.tile
    ]


def _rounded(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """(256 upper + lower) / 257, rounded: the upper byte, unless the lower is over half of 257 from it."""
    difference = lower.astype(np.int16) - upper
    return upper + (difference > 128) - (difference < -128)


def _unpremultiplied(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    samples = upper * np.float32(256) + lower
    alpha = samples[..., 3:]
    samples[..., :3] = np.minimum(samples[..., :3] * 65535 / np.maximum(alpha, 1), 65535)
    return np.rint(samples / 257).astype(np.uint8)
