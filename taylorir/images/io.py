"""Read and write pictures: arrays on this side, whatever files hold on the other.

Shape legend: H height, W width.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from taylorir.images.decode import Picture, Undecoded, decode, is_defined, open_undecoded
from taylorir.images.deep_png import write_deep_png
from taylorir.images.depth import to_8_bits
from taylorir.rows import one_line, write_atomic

MAX_PIXELS = 100_000_000
#: Suffixes of the pictures that a folder is searched for.
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
#: Suffixes that a result can have.
WRITABLE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
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
        ValueError: its content is no picture, damaged, too large, or of a kind without a defined
            black and white. Decoding raises nothing else, whatever is in the file.
    """
    picture = open_picture(path, max_pixels=max_pixels)
    colours = to_8_bits(picture.colours)
    if picture.alpha is None:
        return np.ascontiguousarray(colours)
    seen = Image.fromarray(np.dstack([colours, to_8_bits(picture.alpha)]))
    return np.array(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))


def open_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture with all that :func:`read_image` leaves out: alpha, 16 bits, one channel for grey.

    Args:
        path: the file.
        max_pixels: a larger picture is refused after reading its header only.

    Returns:
        The picture, upright.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: its content is no picture, damaged, too large, or of a kind without a defined
            black and white. Decoding raises nothing else, whatever is in the file.
    """
    with _undecoded(Path(path), max_pixels) as source:
        if not is_defined(source.picture):
            raise ValueError(
                f"{path}: pixels of type {source.picture.mode} have no defined black and white; "
                "save it as 8- or 16-bit first"
            )
        with _fault_of(Path(path), "is damaged or cut short", max_pixels):
            return decode(source)


def picture_size(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height as they are in the file, not turned upright; only the header is read.

    Raises:
        OSError, ValueError: as :func:`open_picture`.
    """
    with _undecoded(Path(path), max_pixels) as source:
        return source.picture.size


@contextlib.contextmanager
def _undecoded(path: Path, max_pixels: int) -> Iterator[Undecoded]:
    """The open file, of which the header is read."""
    if not path.exists():
        raise FileNotFoundError(f"no such image file: {path}")
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no file'}, expected an image file")
    with path.open("rb") as file:
        with _fault_of(path, "is not an image that can be read", max_pixels):
            source = open_undecoded(file)
        width, height = source.picture.size
        if width * height > max_pixels:
            raise ValueError(f"{path} is {width}x{height}, more than the limit of {max_pixels:,} pixels")
        yield source


@contextlib.contextmanager
def _fault_of(path: Path, what: str, max_pixels: int) -> Iterator[None]:
    """Take whatever a decoder raises for a fault of the file: Pillow has no one type for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError:
        raise ValueError(f"{path} claims far more than the limit of {max_pixels:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path} {what} (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM)") from None
    except MemoryError:
        raise ValueError(f"{path} is not decoded in the memory that there is") from None
    except Exception as error:
        raise ValueError(f"{path} {what}: {one_line(error)}") from error


def write_image(
    path: str | os.PathLike[str], image: np.ndarray, *, icc_profile: bytes | None = None, quality: int = 95
) -> None:
    """Write an image; the file appears whole or not at all.

    PNG and WebP are lossless; JPEG is written without chroma subsampling.

    Args:
        path: the file; its suffix (.png, .webp, .jpg, .jpeg) sets the format. Its folder must exist.
        image: uint8, or uint16 for PNG, ``[H, W]`` or ``[H, W, 1]`` grey, ``[H, W, 2]`` grey and alpha,
            ``[H, W, 3]`` RGB or ``[H, W, 4]`` RGBA.
        icc_profile: an embedded profile.
        quality: of JPEG, 1..95.

    Raises:
        TypeError: neither a uint8 nor a uint16 array.
        ValueError: an unknown suffix, a shape that is no image, or one that the format cannot hold.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"cannot write {path}: the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}")
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image must be a uint8 or uint16 array, not {kind}")
    if (
        image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4))
        or 0 in image.shape
    ):
        raise ValueError(f"image must be [H, W] or [H, W, 1 to 4 channels], not {list(image.shape)}")
    image = image.squeeze(2) if image.ndim == 3 and image.shape[2] == 1 else image
    if suffix in (".jpg", ".jpeg") and image.ndim == 3 and image.shape[2] in (2, 4):
        raise ValueError(f"cannot write {path}: JPEG has no transparency; use .png or .webp")
    if image.dtype == np.uint16:
        if suffix != ".png":
            raise ValueError(f"cannot write {path}: of the formats only PNG holds 16 bits")
        write_atomic(path, lambda file: write_deep_png(file, image, icc_profile))
        return
    options: dict[str, object] = {"icc_profile": icc_profile} if icc_profile else {}
    if suffix == ".webp":
        options |= {"lossless": True, "format": "WEBP"}
    elif suffix == ".png":
        options |= {"format": "PNG"}
    else:
        options |= {"quality": quality, "subsampling": 0, "format": "JPEG"}
    picture = Image.fromarray(np.ascontiguousarray(image))
    write_atomic(path, lambda file: picture.save(file, **options))
