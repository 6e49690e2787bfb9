"""Upscale a picture in memory: a PIL image, an array or a tensor gives the same kind back.

Shape legend: B images, C channels (1 grey, 2 grey and transparency, 3 RGB, 4 RGB and transparency), s
upscale.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from taylorir.evaluation.super_resolution import load_model, super_resolve
from taylorir.images import Picture, bleed_colours, imresize, open_picture, to_8_bits
from taylorir.networks import default_model, image_channels

Kind = TypeVar("Kind", Image.Image, np.ndarray, Tensor)


@overload
def upscale(
    picture: str | os.PathLike[str],
    upscale: int = 2,
    *,
    model: nn.Module | str | None = None,
    tile: int | str | None = "auto",
    memory: int | str | None = None,
    self_ensemble: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> Image.Image: ...


@overload
def upscale(
    picture: Kind,
    upscale: int = 2,
    *,
    model: nn.Module | str | None = None,
    tile: int | str | None = "auto",
    memory: int | str | None = None,
    self_ensemble: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> Kind: ...


def upscale(
    picture: str | os.PathLike[str] | Image.Image | np.ndarray | Tensor,
    upscale: int = 2,
    *,
    model: nn.Module | str | None = None,
    tile: int | str | None = "auto",
    memory: int | str | None = None,
    self_ensemble: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> Image.Image | np.ndarray | Tensor:
    """Upscale a picture.

    Greyscale stays greyscale (a network for colours sees it as RGB, and the three channels that it returns
    are averaged). Transparency is upscaled by bicubic, the colours beneath it by the model.

    Args:
        picture: a path; a PIL image; an array, uint8 or uint16, ``[H, W]`` or ``[H, W, C]``; a tensor
            ``[C, H, W]`` or ``[B, C, H, W]``, uint8 or floating point in 0..1, seen in steps of 1/65535.
        upscale: s.
        model: ``"bicubic"``, a network, or what :func:`taylorir.networks.load_network` takes; None: the
            weights of :func:`taylorir.networks.default_model`.
        tile: as in :func:`taylorir.evaluation.super_resolve`, and so are the arguments that follow.
        memory: see ``tile``.
        self_ensemble: see ``tile``.
        precision: see ``tile``.
        progress: show a bar over the tiles.

    Returns:
        The same kind of picture, s times as high and wide; a PIL image for a path. Palettes and other modes
        than L, LA, RGB and RGBA become RGB or RGBA. A tensor keeps its dtype and device, and has no gradient.

    Raises:
        TypeError: no picture, or numbers of another dtype.
        ValueError: another shape, or as :func:`taylorir.evaluation.super_resolve`.
    """
    if model is None or isinstance(model, str):
        device = picture.device if isinstance(picture, Tensor) else "cpu"
        model = load_model(default_model(upscale) if model is None else model, device=device)
    channels = image_channels(model)
    run = functools.partial(
        super_resolve,
        model,
        upscale=upscale,
        tile=tile,
        memory=memory,
        self_ensemble=self_ensemble,
        precision=precision,
        progress=progress,
    )
    if isinstance(picture, str | os.PathLike):
        pixels = to_8_bits(open_picture(picture).pixels)
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        return Image.fromarray(_by_channels(pixels, run, upscale, channels))
    if isinstance(picture, Image.Image):
        return Image.fromarray(_by_channels(np.array(_in_channels(picture)), run, upscale, channels))
    if isinstance(picture, np.ndarray):
        return _by_channels(picture, run, upscale, channels)
    if isinstance(picture, Tensor):
        return _of_tensor(picture, lambda pixels: _by_channels(pixels, run, upscale, channels))
    raise TypeError(f"a picture is a path, a PIL image, an array or a tensor, not {type(picture).__name__}")


def _by_channels(
    pixels: np.ndarray, run: Callable[[np.ndarray], np.ndarray], upscale: int, channels: int
) -> np.ndarray:
    """``[H, W]`` or ``[H, W, C]`` with the colours upscaled by ``run``, transparency by bicubic."""
    if pixels.ndim == 2:
        return _by_channels(pixels[:, :, None], run, upscale, channels)[:, :, 0]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"a picture is [H, W] or [H, W, C] with 1 to 4 channels, not {list(pixels.shape)}")
    picture, alpha = Picture(pixels), Picture(pixels).alpha
    sr = run(seen_by(picture, channels))
    sr = mean_channel(sr) if picture.is_grey else sr
    return sr if alpha is None else np.dstack([sr, imresize(alpha, float(upscale))])


def seen_by(picture: Picture, channels: int) -> np.ndarray:
    """What a network sees of a picture: its colours, where nothing is to be seen those around.

    Args:
        picture: grey ones have three equal colours.
        channels: of the network, 3 or 1.

    Returns:
        ``[H, W, channels]``.

    Raises:
        ValueError: colours for a grey network.
    """
    colours = picture.colours
    if channels == 1 and not picture.is_grey:
        raise ValueError("the network is for grey pictures, and this one has colours: turn it to grey first")
    colours = colours if picture.alpha is None else bleed_colours(colours, picture.alpha)
    return colours[:, :, :channels]


def mean_channel(sr: np.ndarray) -> np.ndarray:
    """``[H, W, 1]``, the rounded mean of three channels; of one it is that."""
    return (
        sr
        if sr.shape[2] == 1
        else ((sr.sum(axis=2, dtype=np.uint32, keepdims=True) + 1) // 3).astype(sr.dtype)
    )


def _in_channels(picture: Image.Image) -> Image.Image:
    """The picture in one of the modes L, LA, RGB, RGBA; any other turns to RGB or RGBA."""
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        return picture
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _of_tensor(picture: Tensor, upscale_array: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """``[C, H, W]`` or ``[B, C, H, W]``, one image after the other; floating point by way of 16 bits."""
    if picture.ndim == 4:
        return torch.stack([_of_tensor(image, upscale_array) for image in picture])
    pixels = picture.detach().cpu()
    if pixels.is_floating_point():
        if pixels.amin() < 0 or pixels.amax() > 1:
            raise ValueError("a tensor of floating point must lie in 0..1")
        sr = upscale_array((pixels.double() * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16))
        return torch.from_numpy(sr / 65535).permute(2, 0, 1).to(picture)
    return (
        torch.from_numpy(upscale_array(pixels.permute(1, 2, 0).numpy())).permute(2, 0, 1).to(picture.device)
    )
