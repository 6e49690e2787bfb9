"""Images: read, write, MATLAB's bicubic, luma, padding, augmentation.

At the edge an image is a numpy array, uint8, RGB, ``[H, W, 3]``; inside a network it is a float tensor
``[B, 3, H, W]`` in 0..1.

Shape legend: B batch, H height, W width, C channels, s scale, n length of the axis that is resized or padded.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

from taylorir.rows import one_line, write_atomic

MAX_PIXELS = 100_000_000
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
WRITABLE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
LUMA_WEIGHTS = (65.481, 128.553, 24.966)
PADDING_MODES = ("reflect", "flip")

_CHUNK_VALUES = 2_000_000  # 8-bit values that are resized at once in float64: bounds the memory
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, OverflowError)


# --------------------------------------------------------------------------------------------- read and write


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


# --------------------------------------------------------------------------------------------- MATLAB bicubic


def imresize(
    image: np.ndarray | torch.Tensor, scale: float, *, antialias: bool = True
) -> np.ndarray | torch.Tensor:
    """MATLAB's ``imresize(image, scale, 'bicubic')``.

    Cubic kernel with a = -0.5 (Keys, 1981), stretched by 1/scale when shrinking (antialiasing), symmetric
    border; vertical pass first. 8-bit input is rounded (half up) and clipped to 8 bits after each of the two
    passes, as MATLAB does, and computed in float64: the result is bit-exact. Floating-point input is neither
    rounded nor clipped, keeps its dtype, and is differentiable.

    Args:
        image: numpy ``[H, W]`` or ``[H, W, C]``, or torch ``[..., H, W]`` on any device.
        scale: output size over input size; the output has ``ceil(scale * n)`` pixels.
        antialias: stretch the kernel when shrinking.

    Returns:
        The same kind and dtype as ``image``.

    Raises:
        TypeError: neither a numpy array nor a tensor, or a dtype that is neither uint8 nor floating point.
        ValueError: a shape that is no image, or a scale that is not positive and finite.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be positive and finite, not {scale}")
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise ValueError(f"image must be [H, W] or [H, W, C], not {list(image.shape)}")
        pixels, axes = torch.from_numpy(np.require(image, requirements="CW")), (0, 1)
    elif isinstance(image, torch.Tensor):
        if image.ndim < 2:
            raise ValueError(f"image must be [..., H, W], not {list(image.shape)}")
        pixels, axes = image, (-2, -1)
    else:
        raise TypeError(f"image must be a numpy array or a torch tensor, not {type(image).__name__}")
    if 0 in pixels.shape:
        raise ValueError(f"image is empty: {list(pixels.shape)}")
    eight_bit = pixels.dtype == torch.uint8
    if not (eight_bit or pixels.is_floating_point()):
        raise TypeError(f"image must be uint8 or floating point, not {pixels.dtype}")
    for axis, other in (axes, axes[::-1]):
        if eight_bit:
            lines = max(1, _CHUNK_VALUES * pixels.shape[other] // pixels.numel())
            shape = list(pixels.shape)
            shape[axis] = _output_size(shape[axis], scale)
            resized = pixels.new_empty(shape)
            for old, new in zip(pixels.split(lines, other), resized.split(lines, other), strict=True):
                new.copy_(_resize_axis(old, axis, scale, antialias).add_(0.5).floor_().clamp_(0, 255))
            pixels = resized
        else:
            pixels = _resize_axis(pixels, axis, scale, antialias)
    return pixels.numpy() if isinstance(image, np.ndarray) else pixels


def _resize_axis(pixels: torch.Tensor, axis: int, scale: float, antialias: bool) -> torch.Tensor:
    indices, weights = _taps(pixels.shape[axis], float(scale), antialias)
    dtype = torch.float64 if pixels.dtype == torch.uint8 else pixels.dtype
    trailing = (-axis if axis < 0 else pixels.ndim - axis) - 1
    weights = weights.to(pixels.device, dtype).reshape(*weights.shape, *[1] * trailing)
    indices = indices.to(pixels.device)
    total: torch.Tensor | float = 0.0
    for index, weight in zip(indices, weights, strict=True):
        total = total + pixels.index_select(axis, index) * weight
    return total


@functools.lru_cache(maxsize=64)
def _taps(n: int, scale: float, antialias: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Source indices and weights, both ``[taps, n_out]``, float64; columns of weights sum to one."""
    n_out = _output_size(n, scale)
    stretch = scale if antialias and scale < 1 else 1.0
    support = 4 / stretch
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centre - support / 2).astype(np.int64) + 1
    indices = first + np.arange(math.ceil(support) + 1)[:, None]  # [taps, n_out]
    weights = _cubic(stretch * (centre - indices))
    weights /= weights.sum(axis=0)
    used = np.any(weights != 0, axis=1)
    indices = _mirror(indices[used], n, repeat_edge=True)
    return torch.from_numpy(indices), torch.from_numpy(weights[used])


def _output_size(n: int, scale: float) -> int:
    return math.ceil(round(n * scale, 6))  # 1/3 of 9 is 3, whatever the last bit of 1/3 says


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel with a = -0.5 (Keys, IEEE TASSP 29(6), 1981, equation 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _mirror(indices: np.ndarray, n: int, *, repeat_edge: bool) -> np.ndarray:
    """Fold any integer index into 0..n-1 by reflection, as often as it takes."""
    period = 2 * n if repeat_edge else max(2 * n - 2, 1)
    folded = np.mod(indices, period)
    return np.where(folded < n, folded, period - repeat_edge - folded)


# -------------------------------------------------------------------------------- luma, crop, tensors, pad


def rgb_to_y(image: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Luma of ITU-R BT.601 in studio swing, not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 with R, G, B in 0..255, so Y is in 16..235.

    Args:
        image: numpy ``[..., 3]`` or torch ``[..., 3, H, W]``, values in 0..255 whatever the dtype.

    Returns:
        numpy float64 ``[...]``, or torch ``[..., H, W]`` (float64 for integers, else the dtype of ``image``).

    Raises:
        ValueError: there are no three channels where they belong.
    """
    axis = -3 if isinstance(image, torch.Tensor) else -1
    if image.ndim < -axis or image.shape[axis] != 3:
        raise ValueError(f"image must have 3 channels on axis {axis}, not shape {list(image.shape)}")
    red, green, blue = LUMA_WEIGHTS
    if isinstance(image, torch.Tensor):
        image = image if image.is_floating_point() else image.double()
        r, g, b = image.unbind(axis)
        return 16.0 + (red * r + green * g + blue * b) / 255.0
    return 16.0 + image.astype(np.float64) @ (np.array(LUMA_WEIGHTS) / 255.0)


def mod_crop(image: np.ndarray, scale: int) -> np.ndarray:
    """Crop bottom and right to a multiple of ``scale``.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        scale: a positive integer.

    Returns:
        A view ``[H - H % scale, W - W % scale(, C)]``.

    Raises:
        ValueError: the image is smaller than ``scale``, or ``scale`` is not positive.
    """
    if scale < 1:
        raise ValueError(f"scale must be a positive integer, not {scale}")
    height, width = image.shape[:2]
    if min(height, width) < scale:
        raise ValueError(f"an image of {width}x{height} pixels cannot be cropped to a multiple of {scale}")
    return image[: height - height % scale, : width - width % scale]


def to_tensor(image: np.ndarray, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
    """uint8 ``[H, W, 3]`` to a float tensor ``[1, 3, H, W]`` in 0..1."""
    pixels = torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements="CW"))
    return pixels.to(device)[None].to(dtype) / 255.0


def to_image(tensor: torch.Tensor) -> np.ndarray:
    """Float tensor ``[1, 3, H, W]`` or ``[3, H, W]`` to uint8 ``[H, W, 3]``: clipped, times 255, rounded.

    Raises:
        ValueError: another shape.
    """
    pixels = tensor.detach()
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 3:
        raise ValueError(f"tensor must be [1, 3, H, W] or [3, H, W], not {list(tensor.shape)}")
    pixels = pixels.float().clamp(0, 1).mul(255.0).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def pad_to_multiple(image: torch.Tensor, multiple: int, mode: str = "reflect") -> torch.Tensor:
    """Extend bottom and right to a multiple of the window.

    ``reflect`` mirrors without repeating the edge and adds nothing where the size already fits. ``flip`` is
    what SwinIR's test script does: the edge is repeated, and a whole multiple is added even where the size
    fits. Both mirror as often as needed, so an image may be smaller than its padding.

    Args:
        image: ``[..., H, W]``.
        multiple: the window size in pixels.
        mode: ``reflect`` or ``flip``.

    Returns:
        ``[..., H', W']`` with H' and W' multiples of ``multiple``.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in PADDING_MODES:
        raise ValueError(f"padding must be one of {', '.join(PADDING_MODES)}, not {mode!r}")
    for axis in (-2, -1):
        n = image.shape[axis]
        target = (n // multiple + 1) * multiple if mode == "flip" else -(-n // multiple) * multiple
        if target != n:
            index = torch.from_numpy(_mirror(np.arange(target), n, repeat_edge=mode == "flip"))
            image = image.index_select(axis, index.to(image.device))
    return image
