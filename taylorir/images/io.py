"""Read and write pictures: 8-bit RGB on this side, whatever files hold on the other.

At the edge an image is a numpy array, uint8, RGB, ``[H, W, 3]``. Shape legend: H height, W width.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from taylorir.rows import one_line, write_atomic

MAX_PIXELS = 100_000_000
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
WRITABLE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, OverflowError)


def read_image(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture as 8-bit RGB.

    Greyscale is replicated to three channels, palettes are resolved, transparency is composited on white,
    16-bit grey is scaled by 255/65535 and rounded (of 16-bit colour, Pillow keeps the upper 8 bits), CMYK
    goes to sRGB, through its embedded profile if it has one, the EXIF orientation is applied, and of an
    animation the first frame counts. An embedded RGB profile is not applied: the values are those in the
    file.

    Args:
        path: the file.
        max_pixels: a larger picture is refused after reading its header only.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, damaged, too large, or of a kind without a defined 8-bit meaning.
    """
    picture = open_picture(path, max_pixels=max_pixels)
    if "A" in picture.getbands():
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


def open_picture(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to one of the modes L, LA, RGB, RGBA, upright, and fully in memory.

    Args:
        path: the file.
        max_pixels: a larger picture is refused after reading its header only.

    Returns:
        The picture. Its ``info`` holds ``icc_profile`` only where that still describes the pixels, and
        ``notes``: what of the file the result does not hold.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, damaged, too large, or of a kind without a defined 8-bit meaning.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected an image file")
    if not path.exists():
        raise FileNotFoundError(f"no such image file: {path}")
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = Image.open(file)
        except Image.DecompressionBombError:
            raise ValueError(f"{path} claims far more than the limit of {max_pixels:,} pixels") from None
        except _DAMAGED:
            raise ValueError(f"{path} is not an image that can be read") from None
        width, height = picture.size
        if width * height > max_pixels:
            raise ValueError(f"{path} is {width}x{height}, more than the limit of {max_pixels:,} pixels")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.load()
                ImageOps.exif_transpose(picture, in_place=True)
        except _DAMAGED as error:
            raise ValueError(f"{path} is damaged or cut short: {one_line(error)}") from None
        try:
            return _to_8_bit(picture)
        except _DAMAGED as error:
            raise ValueError(f"{path}: {one_line(error)}") from None


def _to_8_bit(picture: Image.Image) -> Image.Image:
    mode, profile = picture.mode, picture.info.get("icc_profile")
    notes = ["only the first frame is used"] if getattr(picture, "n_frames", 1) > 1 else []
    keep_profile = False
    if mode.startswith("I;16") or (mode == "I" and picture.format == "PNG"):
        values = np.asarray(picture).astype(np.int64)
        converted = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        notes.append("16 bits are reduced to 8")
    elif mode in ("I", "F", "LAB"):
        raise ValueError(
            f"pixels of type {mode} have no defined 8-bit meaning; save it as 8- or 16-bit first"
        )
    elif mode == "CMYK":
        converted = _cmyk_to_rgb(picture, profile)
        notes.append("CMYK is turned to sRGB")
    else:
        transparent = "transparency" in picture.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
        grey = mode in ("1", "L", "LA", "La")
        converted = picture.convert(
            ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
        )
        keep_profile = profile is not None
    converted.info = {"notes": notes} | ({"icc_profile": profile} if keep_profile else {})
    return converted


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


def write_image(
    path: str | os.PathLike, image: np.ndarray, *, icc_profile: bytes | None = None, quality: int = 95
) -> None:
    """Write an 8-bit image; the file appears whole or not at all.

    PNG and WebP are lossless; JPEG is written without chroma subsampling.

    Args:
        path: the file; its suffix (.png, .webp, .jpg, .jpeg) sets the format. Its folder must exist.
        image: uint8 ``[H, W]`` grey, ``[H, W, 2]`` grey and alpha, ``[H, W, 3]`` RGB or ``[H, W, 4]`` RGBA.
        icc_profile: an embedded profile.
        quality: of JPEG, 1..95.

    Raises:
        TypeError: not a uint8 array.
        ValueError: an unknown suffix, a shape that is no image, or one that the format cannot hold.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"cannot write {path}: the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"image must be a uint8 array, not {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (2, 3, 4)) or 0 in image.shape:
        raise ValueError(f"image must be [H, W], [H, W, 2], [H, W, 3] or [H, W, 4], not {list(image.shape)}")
    if suffix in (".jpg", ".jpeg") and image.ndim == 3 and image.shape[2] in (2, 4):
        raise ValueError(f"cannot write {path}: JPEG has no transparency; use .png or .webp")
    options: dict[str, object] = {"icc_profile": icc_profile} if icc_profile else {}
    if suffix == ".webp":
        options |= {"lossless": True, "format": "WEBP"}
    elif suffix == ".png":
        options |= {"format": "PNG"}
    else:
        options |= {"quality": quality, "subsampling": 0, "format": "JPEG"}
    picture = Image.fromarray(np.ascontiguousarray(image))
    write_atomic(path, lambda file: picture.save(file, **options))
