"""From a file to pixels: a list of formats, the first frame, upright, whatever the metadata say.

Shape legend: H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from taylorir.images.depth import deep_pixels, to_8_bits
from taylorir.images.metadata import Bare, is_profile, orientation_of, without_metadata
from taylorir.images.tiff import TiffReader

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # and TIFF, by a reader of its own


@dataclass(frozen=True, eq=False)
class Picture:
    """What a file holds.

    Attributes:
        pixels: uint8, or uint16 where the file has more than 8 bits a sample, ``[H, W, C]``: grey, grey and
            alpha, RGB or RGBA. Fewer or more bits are scaled, so that the largest value is white.
        profile: the colour profile, where there is one and it still describes the pixels.
        notes: what of the file the pixels do not hold.
    """

    pixels: np.ndarray
    profile: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def alpha(self) -> np.ndarray | None:
        """Opacity ``[H, W]``, where there is one."""
        return self.pixels[..., -1] if self.pixels.shape[2] in (2, 4) else None

    @property
    def is_grey(self) -> bool:
        """Whether there is one channel beside alpha."""
        return self.pixels.shape[2] < 3

    @property
    def colours(self) -> np.ndarray:
        """RGB ``[H, W, 3]``; of grey three equal channels."""
        return self.pixels[..., :1].repeat(3, axis=2) if self.is_grey else self.pixels[..., :3]


@dataclass(frozen=True)
class Undecoded:
    """A picture of which the header is read.

    Attributes:
        picture: Pillow's, not loaded.
        bare: where it is read from.
        orientation: EXIF's, 1 to 8.
        profile: the colour profile, where there is one.
    """

    picture: ImageFile.ImageFile
    bare: Bare
    orientation: int
    profile: bytes | None


def open_undecoded(file: BufferedReader) -> Undecoded:
    """Read the header of a picture.

    Raises:
        Exception: whatever the readers of Pillow raise; the caller takes each for a fault of the file.
    """
    bare = without_metadata(file)
    picture = _identify(bare.stream)
    if isinstance(picture, TiffReader):
        orientation, profile = picture.orientation, picture.profile
    else:
        orientation = orientation_of(bare.exif or picture.info.get("exif"))
        profile = bare.profile or picture.info.get("icc_profile")
    return Undecoded(
        picture,
        bare,
        orientation if orientation in range(1, 9) else 1,
        profile if is_profile(profile) else None,
    )


def _identify(stream: BinaryIO) -> ImageFile.ImageFile:
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return TiffReader(stream) if head in TiffImagePlugin.PREFIXES else Image.open(stream, formats=FORMATS)


def is_defined(picture: Image.Image) -> bool:
    """Whether it is defined which values are black and white: of floating-point and signed ones it is not."""
    return picture.mode not in ("F", "LAB") and (picture.mode != "I" or picture.format in ("PNG", "PPM"))


def decode(source: Undecoded) -> Picture:
    """Decode the first frame, upright.

    Raises:
        Exception: whatever the decoders of Pillow raise; the caller takes each for a fault of the file.
    """
    picture, profile = source.picture, source.profile
    notes = ["only the first frame is used"] if source.bare.animated or _is_animated(picture) else []
    pixels = deep_pixels(picture, lambda: _identify(source.bare.stream))
    if picture.mode == "CMYK":
        if pixels is not None:
            picture = Image.fromarray(to_8_bits(pixels), "CMYK")
            notes.append("16 bits are reduced to 8")
        pixels, profile = np.array(_cmyk_to_rgb(picture, profile)), None
        notes.append("CMYK is turned to sRGB")
    elif pixels is None:
        picture.load()
        pixels = np.array(picture.convert(_mode_for(picture)))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return Picture(_upright(pixels, source.orientation), profile, tuple(notes))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _is_animated(picture: ImageFile.ImageFile) -> bool:
    try:
        return getattr(picture, "is_animated", False)
    except Exception:  # the second frame is there and broken, in whatever way
        return True


def _mode_for(picture: Image.Image) -> str:
    transparent = "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if picture.mode in ("1", "L", "LA", "La"):
        return "LA" if transparent else "L"
    return "RGBA" if transparent else "RGB"


def _cmyk_to_rgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the uncalibrated conversion below is what remains
    return picture.convert("RGB")
