"""Samples of more than 8 bits, each scaled from its own range to 0..65535 and rounded.

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


def deep_pixels(picture: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]) -> np.ndarray | None:
    """Pixels of a picture whose samples do not have 8 bits in the file.

    Args:
        picture: its header is read, its pixels are not.
        reopen: reads the header again.

    Returns:
        uint16, or uint8 for fewer than 9 bits, ``[H, W]`` or ``[H, W, C]``; None where Pillow's own values
        are right.
    """
    if picture.format == "PPM":
        return _portable_pixels(picture)
    if picture.format not in ("PNG", "TIFF"):
        return None
    if picture.mode.startswith("I"):
        return _grey_pixels(picture)
    args = picture.tile[0].args
    rawmode = args if isinstance(args, str) else args[0]
    if ";16" in rawmode or getattr(picture, "grey_and_alpha", False):
        return _colour_pixels(picture, rawmode, reopen)
    if rawmode in ("L;2", "L;4") and "transparency" in picture.info:  # Pillow scales the samples alone
        picture.info["transparency"] *= 85 if rawmode == "L;2" else 17
    return None


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """uint16 scaled by 255/65535 and rounded to uint8; uint8 as it is."""
    return pixels if pixels.dtype == np.uint8 else _scaled(pixels, 65535, 255)


def _scaled(samples: np.ndarray, largest: int, white: int) -> np.ndarray:
    wide = np.minimum(samples, largest).astype(np.uint64 if white > 255 else np.uint32)
    return ((wide * white + largest // 2) // largest).astype(np.uint8 if white == 255 else np.uint16)


def _portable_pixels(picture: ImageFile.ImageFile) -> np.ndarray | None:
    codec, _, offset, args = picture.tile[0]
    if codec == "ppm":  # binary; Pillow's decoder takes microseconds a sample, and gives colour 8 bits
        largest, bands = args[-1], len(picture.getbands())
        kind = np.dtype(">u2" if largest > 255 else "u1")
        picture.fp.seek(offset)
        content = picture.fp.read(picture.width * picture.height * bands * kind.itemsize)
        samples = np.frombuffer(content, kind).reshape(picture.height, picture.width, bands)
        return _scaled(samples, largest, 65535 if largest > 255 else 255)
    return np.asarray(picture).astype(np.uint16) if picture.mode == "I" else None


def _grey_pixels(picture: ImageFile.ImageFile) -> np.ndarray:
    bits, inverted = (picture.bits, picture.white_is_zero) if isinstance(picture, TiffReader) else (16, False)
    samples = np.asarray(picture)
    grey = _scaled(samples, 2**bits - 1, 65535) if bits < 16 else samples.astype(np.uint16)
    if inverted:
        grey = ~grey
    transparent = picture.info.get("transparency")
    return grey if transparent is None else np.dstack([grey, _opaque(samples != transparent)])


def _opaque(visible: np.ndarray) -> np.ndarray:
    return np.where(visible, np.uint16(65535), np.uint16(0))


def _colour_pixels(
    picture: ImageFile.ImageFile, rawmode: str, reopen: Callable[[], ImageFile.ImageFile]
) -> np.ndarray:
    transparent = picture.info.get("transparency")
    upper, lower = _bytes(picture, rawmode, reopen)
    pixels = upper.astype(np.uint16) << 8 | lower
    if rawmode.startswith("RGBa"):
        alpha = np.maximum(pixels[..., 3:], 1).astype(np.float64)
        pixels[..., :3] = np.rint(np.minimum(pixels[..., :3] * (65535 / alpha), 65535))
    if getattr(picture, "white_is_zero", False):
        pixels[..., 0] = ~pixels[..., 0]
    if transparent is not None:
        pixels = np.dstack([pixels, _opaque((pixels != np.array(transparent)).any(axis=2))])
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
