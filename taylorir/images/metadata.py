"""Files without their metadata: what a camera or an editor wrote about a picture never decides whether its
pixels can be read. Only the orientation and the colour profile are taken out first.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import BinaryIO

from PIL import ExifTags, Image

_LARGEST_FILE = 2**30  # of a PNG or JPEG, which are copied without their metadata; what follows is cut off
_LARGEST_PROFILE = 2**24
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"
_MOST_SCANS = 200  # a progressive JPEG has about ten; each makes the decoder pass over all pixels again


@dataclass(frozen=True)
class Bare:
    """A picture file whose format allows it, without metadata.

    Attributes:
        stream: what a decoder is to read.
        exif: the EXIF block, where the file has one.
        profile: the colour profile, unchecked, where the file has one.
        animated: more frames follow.
    """

    stream: BinaryIO
    exif: bytes | None = None
    profile: bytes | None = None
    animated: bool = False


def without_metadata(file: BufferedReader) -> Bare:
    """Take the metadata from a PNG or a JPEG; any other file is passed on as it is.

    What is malformed goes to the decoder, which says so.

    Raises:
        ValueError: a JPEG of more scans than a picture has.
    """
    head = file.read(8)
    file.seek(0)
    if head == _PNG_SIGNATURE:
        return _bare_png(file)
    if head.startswith(_JPEG_START):
        return _bare_jpeg(file.read(_LARGEST_FILE))
    return Bare(file)


def _bare_png(file: BufferedReader) -> Bare:
    stream = BytesIO()
    stream.write(file.read(8))
    exif = profile = None
    animated = False
    while len(header := file.read(8)) == 8 and stream.tell() < _LARGEST_FILE:
        length, kind = struct.unpack(">I4s", header)
        if kind in _PNG_PIXELS:
            stream.write(header)
            stream.write(file.read(length + 4))
        elif kind == b"eXIf":
            exif = file.read(length)
            file.seek(4, 1)
        elif kind == b"iCCP":
            profile = _inflate(file.read(length).partition(b"\0")[2][1:])
            file.seek(4, 1)
        else:
            if kind == b"acTL":
                animated = int.from_bytes(file.peek(4)[:4], "big") > 1
            file.seek(length + 4, 1)
        if kind == b"IEND":
            break
    stream.seek(0)
    return Bare(stream, exif, profile, animated)


def _inflate(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _LARGEST_PROFILE)
    except zlib.error:
        return None


def _bare_jpeg(content: bytes) -> Bare:
    stream = BytesIO()
    stream.write(_JPEG_START)
    exif, profile, position = None, {}, 2
    while content[position : position + 1] == b"\xff":
        marker = content[position + 1 : position + 2]
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == b"\xff":  # fill
            position += 1
            continue
        if marker in (b"", b"\xda") or length < 2:
            break
        segment = content[position : position + 2 + length]
        if b"\xe0" < marker < b"\xee" or marker in (b"\xef", b"\xfe"):  # APP1..APP13, APP15, comment
            body = segment[4:]
            if body.startswith(b"Exif\0\0"):
                exif = exif or body
            elif body.startswith(b"ICC_PROFILE\0"):
                profile[body[12:13]] = body[14:]
        else:
            stream.write(segment)
        position += 2 + length
    if content.count(_JPEG_SCAN, position) > _MOST_SCANS:
        raise ValueError(f"more than {_MOST_SCANS} scans")
    stream.write(memoryview(content)[position:])
    stream.seek(0)
    return Bare(stream, exif, b"".join(profile[part] for part in sorted(profile)) or None)


def orientation_of(exif: bytes | None) -> int:
    """Orientation in an EXIF block: 1 (upright) to 8; 1 where the block is missing or makes no sense."""
    block = Image.Exif()
    try:
        block.load(exif)
        orientation = block.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow has no type for a block that it cannot read
        return 1
    return orientation if orientation in range(1, 9) else 1


def is_profile(profile: object) -> bool:
    """Whether this may be an ICC profile: its signature is in place."""
    return isinstance(profile, bytes) and 128 <= len(profile) < _LARGEST_PROFILE and profile[36:40] == b"acsp"
