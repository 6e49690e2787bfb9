"""Pictures of every format and mode, and broken ones made of them at random: always the same for a seed."""

from __future__ import annotations

import functools
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import tifffile
from PIL import Image

from tests.pictures import PNG_SIGNATURE, noise, png, png_chunk

Mutation = Callable[[bytes, np.random.Generator], bytes]

_EXTREMES = (b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff\xff\xff")
_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@functools.cache
def pictures() -> dict[str, bytes]:
    """Sound files by name; the suffix tells the format."""
    rgba, height, width = noise(20, 24, 4), 20, 24
    rgba[..., :3] //= 2  # not all noise: runs and tables of the encoders get something to do
    rgba[5:15, 5:15] = 200
    deep = rgba.astype(np.uint16) * 257 + 3
    colour, grey = Image.fromarray(rgba[..., :3]), Image.fromarray(rgba[..., 0])
    palette = colour.quantize(16)
    modes = {
        "1": grey.convert("1"),
        "L": grey,
        "LA": Image.fromarray(rgba[..., :2]),
        "P": palette,
        "RGB": colour,
        "RGBA": Image.fromarray(rgba),
        "CMYK": colour.convert("CMYK"),
        "I;16": Image.fromarray(deep[..., 0]),
    }

    def save(mode: str, format: str, **options) -> bytes:
        file = BytesIO()
        modes[mode].save(file, format, **options)
        return file.getvalue()

    def tiff(values: np.ndarray, **options) -> bytes:
        file = BytesIO()
        tifffile.imwrite(file, values, metadata=None, **options)
        return file.getvalue()

    files = {f"{mode}.png": save(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
    files |= {f"deep{n}.png": png(deep[..., :n]) for n in (1, 2, 3, 4)}
    files |= {
        "meta.png": png(
            rgba[..., :3],
            png_chunk(b"eXIf", _EXIF[6:]),
            png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 999)),
            png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(36) + b"acsp" + bytes(99))),
        ),
        "clear.png": save("P", "PNG", transparency=3),
        "key.png": png(deep[..., :3], png_chunk(b"tRNS", deep[0, 0, :3].astype(">u2").tobytes())),
    }
    files |= {f"{mode}.jpg": save(mode, "JPEG", exif=_EXIF) for mode in ("L", "RGB", "CMYK")}
    files |= {"progressive.jpg": save("RGB", "JPEG", progressive=True, subsampling=2)}
    files |= {
        "lossy.webp": save("RGB", "WEBP", exif=_EXIF),
        "lossless.webp": save("RGBA", "WEBP", lossless=True),
        "frames.webp": save("RGB", "WEBP", save_all=True, append_images=[modes["RGB"].rotate(90)]),
    }
    files |= {f"{mode}.tif": save(mode, "TIFF") for mode in modes}
    files |= {
        f"{name}.tif": save("RGB", "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")
    }
    files |= {
        "deflated.tif": save("I;16", "TIFF", compression="tiff_adobe_deflate"),
        "pages.tif": save("L", "TIFF", save_all=True, append_images=[modes["RGB"]] * 2),
        "white.tif": tiff(deep[..., 0], photometric="miniswhite"),
        "deep.tif": tiff(deep[..., :3], photometric="rgb", byteorder=">"),
        "alpha.tif": tiff(
            deep[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
        ),
        "planes.tif": tiff(
            deep[..., :3].transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"
        ),
        "tiles.tif": tiff(rgba[..., :3], photometric="rgb", tile=(16, 16), compression="zlib"),
    }
    files |= {f"{mode}.bmp": save(mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")}
    files |= {
        "plain.gif": save("L", "GIF"),
        "clear.gif": save("P", "GIF", transparency=3),
        "frames.gif": save("P", "GIF", save_all=True, append_images=[palette.rotate(90)]),
    }
    files |= {f"{mode}.ppm": save(mode, "PPM") for mode in ("1", "L", "RGB")}
    size = f"{width} {height}"
    files |= {
        "ten.pgm": f"P5\n{size}\n1023\n".encode() + (deep[..., 0] >> 6).astype(">u2").tobytes(),
        "deep.ppm": f"P6\n{size}\n65535\n".encode() + deep[..., :3].astype(">u2").tobytes(),
        "text.pgm": f"P2\n{size}\n255\n{' '.join(map(str, rgba[..., 0].ravel()))}\n".encode(),
    }
    return files


def mutants(number: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names, each another one, and contents of broken files; a few may happen to be sound."""
    sound = pictures()
    rng = np.random.default_rng(seed)
    suffixes = sorted({name.rpartition(".")[2] for name in sound})
    for index, (name, mutation) in zip(range(number), itertools.cycle(_pairs(sound)), strict=False):
        content = mutation(sound[name], rng)
        while rng.random() < 0.3:
            content = _MUTATIONS[rng.integers(len(_MUTATIONS))](content, rng)
        stem, _, suffix = name.rpartition(".")
        if rng.random() < 0.1:
            suffix = suffixes[rng.integers(len(suffixes))]
        yield f"{index:05d}-{stem.replace(';', '')}.{suffix}", content


def _pairs(sound: dict[str, bytes]) -> list[tuple[str, Mutation]]:
    """Each picture with each mutation, so mixed that a part of them has all formats."""
    pairs = list(itertools.product(sound, _MUTATIONS))
    return [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))]


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for position in rng.integers(len(content), size=rng.integers(1, 20)) if content else ():
        changed[position] ^= 1 << rng.integers(8)
    return bytes(changed)


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _remove(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = np.sort(rng.integers(len(content) + 1, size=2))
    return content[:start] + content[min(stop, start + 64) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = np.sort(rng.integers(len(content) + 1, size=2))
    return content[:stop] + content[start:stop] * rng.integers(1, 4) + content[stop:]


def _header(content: bytes, rng: np.random.Generator) -> bytes:
    """Sizes, depths and counts stand early in a file, in a TIFF late."""
    extreme = _EXTREMES[rng.integers(len(_EXTREMES))]
    position = rng.integers(80) if rng.random() < 0.6 else len(content) - rng.integers(1, 240)
    position = max(0, position)
    return content[:position] + extreme + content[position + len(extreme) :]


def _splice(content: bytes, rng: np.random.Generator) -> bytes:
    others = list(pictures().values())
    other = others[rng.integers(len(others))]
    return content[: rng.integers(len(content) + 1)] + other[rng.integers(len(other)) :]


def _junk(content: bytes, rng: np.random.Generator) -> bytes:
    position = rng.integers(len(content) + 1)
    return content[:position] + rng.bytes(rng.integers(1, 300)) + content[position:]


def _part(content: bytes, rng: np.random.Generator) -> bytes:
    """A sound part too many: a PNG chunk, a JPEG segment, a RIFF chunk, a comment."""
    data = rng.bytes(rng.integers(0, 400))
    if content.startswith(PNG_SIGNATURE):
        kinds = (b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"IHDR", b"IEND")
        chunks = _chunks(content)
        chunks.insert(rng.integers(len(chunks) + 1), (kinds[rng.integers(len(kinds))], data))
        return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)
    if content.startswith(b"\xff\xd8"):
        marker = rng.integers(0xC0, 0xFF)
        return content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]
    if content.startswith(b"RIFF"):
        kind = (b"EXIF", b"ICCP", b"XMP ", b"ANIM", b"VP8 ")[rng.integers(5)]
        return content[:12] + kind + struct.pack("<I", len(data)) + data + content[12:]
    return content[:3] + b"#" + data + b"\n" + content[3:]


def _surgery(content: bytes, rng: np.random.Generator) -> bytes:
    """A PNG whose chunks are changed, dropped or swapped, with checksums that fit; else flipped bits."""
    chunks = _chunks(content)
    if not chunks:
        return _flip(content, rng)
    first, second = rng.integers(len(chunks), size=2)
    match rng.integers(4):
        case 0:
            del chunks[first]
        case 1:
            chunks[first], chunks[second] = chunks[second], chunks[first]
        case 2:
            chunks[first] = (chunks[first][0], _flip(chunks[first][1], rng))
        case 3:
            chunks[0] = (chunks[0][0], _flip(chunks[0][1], rng))
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, position = [], len(PNG_SIGNATURE)
    while content.startswith(PNG_SIGNATURE) and position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


_MUTATIONS: tuple[Mutation, ...] = (_flip, _cut, _remove, _repeat, _header, _splice, _junk, _part, _surgery)
