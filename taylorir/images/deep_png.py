"""PNG of 16 bits a sample, which Pillow writes of grey only.

Shape legend: H height, W width, C channels.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_FILTER_UP = 2  # each byte is stored as its difference from the one above
_ROWS = 64  # compressed at once


def write_deep_png(file: BinaryIO, image: np.ndarray, profile: bytes | None = None) -> None:
    """Write a PNG (W3C Recommendation, 2003) of 16 bits.

    Args:
        file: open for writing.
        image: uint16 ``[H, W]`` or ``[H, W, C]``: grey, grey and alpha, RGB or RGBA.
        profile: a colour profile to embed.
    """
    height, width = image.shape[:2]
    channels = image.size // (height * width)
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    if profile:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    compress = zlib.compressobj()
    above = np.zeros((1, 2 * width * channels), np.uint8)
    for start in range(0, height, _ROWS):
        rows = image[start : start + _ROWS].astype(">u2").reshape(-1, width * channels).view(np.uint8)
        differences = rows - np.concatenate([above, rows[:-1]])
        lines = np.pad(differences, ((0, 0), (1, 0)), constant_values=_FILTER_UP)
        _chunk(file, b"IDAT", compress.compress(lines.tobytes()))
        above = rows[-1:]
    _chunk(file, b"IDAT", compress.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
