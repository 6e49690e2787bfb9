"""From a file to 8-bit pixels: a list of formats, the first frame, upright, whatever the metadata say."""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import BinaryIO

from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin

from taylorir.images.depth import deep_pixels
from taylorir.images.metadata import Bare, is_profile, orientation_of, without_metadata
from taylorir.images.tiff import TiffReader

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # and TIFF, by a reader of its own


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
    """Whether the pixels have a defined 8-bit meaning: floating-point and signed ones have none."""
    return picture.mode not in ("F", "LAB") and (picture.mode != "I" or picture.format in ("PNG", "PPM"))


def decode(source: Undecoded) -> Image.Image:
    """Decode the first frame to one of the modes L, LA, RGB, RGBA, upright.

    Returns:
        The picture; its ``info`` is that of :func:`taylorir.images.open_picture`.

    Raises:
        Exception: whatever the decoders of Pillow raise; the caller takes each for a fault of the file.
    """
    picture, profile = source.picture, source.profile
    notes = ["only the first frame is used"] if source.bare.animated or _is_animated(picture) else []
    bits, pixels = deep_pixels(picture, lambda: _identify(source.bare.stream))
    if bits > 8:
        notes.append(f"{bits} bits are reduced to 8")
    if pixels is not None:
        picture = Image.fromarray(pixels, "CMYK" if picture.mode == "CMYK" else None)
    picture.load()
    if picture.mode == "CMYK":
        converted, profile = _cmyk_to_rgb(picture, profile), None
        notes.append("CMYK is turned to sRGB")
    else:
        converted = picture.convert(_mode_for(picture))
    converted.info = {"notes": notes} | ({"icc_profile": profile} if profile else {})
    converted.getexif()[ExifTags.Base.Orientation] = source.orientation
    ImageOps.exif_transpose(converted, in_place=True)
    return converted


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
