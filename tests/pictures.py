"""Pictures for tests."""

from __future__ import annotations

import struct
import zlib

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """8-bit values at random, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def png(samples: np.ndarray, *chunks: bytes, bits: int | None = None) -> bytes:
    """A PNG file of uint8 or uint16 samples ``[H, W, C]``: grey, grey and alpha, RGB, RGBA.

    Args:
        samples: with one channel of fewer ``bits`` they are packed.
        chunks: stand between the header and the pixels.
        bits: 1, 2, 4; by default those of the dtype.
    """
    height, width, channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits or 8 * samples.itemsize, colour, 0, 0, 0)
    if bits:
        places = np.unpackbits(samples, axis=2)[:, :, -bits:].reshape(height, -1)
        rows = np.packbits(places, axis=1)
    else:
        rows = np.frombuffer(samples.astype(samples.dtype.newbyteorder(">")).tobytes(), np.uint8)
        rows = rows.reshape(height, -1)
    lines = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: none
    return b"".join(
        (
            PNG_SIGNATURE,
            png_chunk(b"IHDR", header),
            *chunks,
            png_chunk(b"IDAT", zlib.compress(lines)),
            png_chunk(b"IEND", b""),
        )
    )
