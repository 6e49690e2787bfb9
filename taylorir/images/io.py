"""Read and write pictures: 8-bit RGB on this side, whatever files hold on the other.

At the edge an image is a numpy array, uint8, RGB, ``[H, W, 3]``. Shape legend: H height, W width.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from taylorir.images.decode import decode, is_defined, open_undecoded
from taylorir.rows import one_line, write_atomic

MAX_PIXELS = 100_000_000
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
WRITABLE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def read_image(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture as 8-bit RGB.

    The file is a PNG, JPEG, WebP, TIFF, BMP, GIF or PPM, whatever its suffix. Greyscale is replicated to
    three channels, palettes are resolved, transparency is composited on white, samples of more than 8 bits
    are scaled from their own range (by 255/65535 for 16 bits) and rounded, CMYK goes to sRGB, through its
    embedded profile if it has one, the EXIF orientation is applied, and of several frames the first counts.
    An embedded RGB profile is not applied: the values are those in the file. Of the metadata only
    orientation and profile are read, and what of them makes no sense is passed over.

    Args:
        path: the file.
        max_pixels: a larger picture is refused after reading its header only.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: its content is no picture, damaged, too large, or of a kind without a defined 8-bit
            meaning. Decoding raises nothing else, whatever is in the file.
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
        OSError: the file is missing or cannot be opened.
        ValueError: its content is no picture, damaged, too large, or of a kind without a defined 8-bit
            meaning. Decoding raises nothing else, whatever is in the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such image file: {path}")
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no file'}, expected an image file")
    with path.open("rb") as file:
        with _fault_of(path, "is not an image that can be read"):
            source = open_undecoded(file)
        width, height = source.picture.size
        if width * height > max_pixels:
            raise ValueError(f"{path} is {width}x{height}, more than the limit of {max_pixels:,} pixels")
        if not is_defined(source.picture):
            raise ValueError(
                f"{path}: pixels of type {source.picture.mode} have no defined 8-bit meaning; "
                "save it as 8- or 16-bit first"
            )
        with _fault_of(path, "is damaged or cut short"):
            return decode(source)


@contextlib.contextmanager
def _fault_of(path: Path, what: str) -> Iterator[None]:
    """Take whatever a decoder raises for a fault of the file: Pillow has no one type for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError:
        raise ValueError(f"{path} claims far more than the limit of {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path} {what} (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM)") from None
    except MemoryError:
        raise ValueError(f"{path} is not decoded in the memory that there is") from None
    except Exception as error:
        raise ValueError(f"{path} {what}: {one_line(error)}") from error


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
