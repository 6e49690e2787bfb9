"""Super-resolve one image of any size: padding, tiles, the self-ensemble."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from taylorir.evaluation.tiles import auto_tile, blend_strips, parse_memory, plan_axis, probe_sides
from taylorir.images import PADDING_MODES, imresize, pad_to_multiple, to_image

BICUBIC = "bicubic"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST_OVERLAP = 32


def super_resolve(
    model: nn.Module | str,
    lr: np.ndarray,
    *,
    upscale: int | None = None,
    tile: int | str | None = None,
    overlap: int | None = None,
    self_ensemble: bool = False,
    padding: str = "reflect",
    memory: int | str | None = None,
    precision: str = "float32",
    progress: bool = False,
) -> np.ndarray:
    """Upscale one image.

    The image is padded at the bottom and right to a multiple of the window, run, and cropped. With ``tile``
    the padded image is cut into overlapping tiles on the grid of windows, each is run alone, and they are
    blended; memory then depends on the tile, not on the image. Without tiles the self-ensemble transforms
    first and pads then, as SwinIR+ does; with tiles it transforms each padded tile.

    Args:
        model: ``"bicubic"``, or a network from ``[1, 3, H, W]`` to ``[1, 3, sH, sW]``, both 0..1.
        lr: uint8 RGB ``[H, W, 3]``.
        upscale: s; needed for bicubic, and for a network without ``config.upscale``.
        tile: side of a tile in LR pixels, rounded down to a multiple of the window; ``"auto"``: the largest
            that ``memory`` allows; None: the whole image at once.
        overlap: least number of LR pixels that neighbouring tiles share; None: :func:`default_overlap`.
        self_ensemble: average over the eight flips and rotations.
        padding: ``reflect``, or ``flip`` (SwinIR's test script; see :func:`taylorir.images.pad_to_multiple`).
        memory: budget for ``tile="auto"``, in bytes or as ``"2GiB"``; None: half of what is free.
        precision: ``float32``, ``bfloat16`` or ``float16`` (autocast; weights stay as they are).
        progress: show a bar over the tiles.

    Returns:
        uint8 RGB ``[sH, sW, 3]``: clipped and rounded.

    Raises:
        TypeError: ``lr`` is not a uint8 array.
        ValueError: ``lr`` is no RGB image, an unknown option, or an ``upscale`` that is not the model's.
    """
    _check_image(lr)
    upscale = check_upscale(model, upscale)
    if padding not in PADDING_MODES:
        raise ValueError(f"padding must be one of {', '.join(PADDING_MODES)}, not {padding!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if isinstance(model, str):
        return imresize(lr, float(upscale))
    window = window_pixels(model)
    overlap = default_overlap(model) if overlap is None else overlap
    run = _runner(model, precision)
    ensemble = _self_ensemble if self_ensemble else (lambda network: network)
    was_training = model.training
    model.eval()
    try:
        pixels = torch.from_numpy(np.require(lr.transpose(2, 0, 1), requirements="CW"))[None]
        if tile == "auto" and max(lr.shape[:2]) <= probe_sides(window)[1]:
            tile = None
        if tile is None:

            def whole(image: Tensor) -> Tensor:
                height, width = image.shape[-2:]
                return run(pad_to_multiple(image, window, padding))[
                    ..., : height * upscale, : width * upscale
                ]

            return to_image(ensemble(whole)(pixels.float() / 255))
        if tile == "auto":
            tile = auto_tile(
                model,
                window=window,
                upscale=upscale,
                overlap=overlap,
                output_pixels=lr.shape[0] * lr.shape[1] * upscale**2,
                memory=None if memory is None else parse_memory(memory),
            )
        elif not isinstance(tile, int):
            raise ValueError(f'tile must be a number of pixels, "auto" or None, not {tile!r}')
        padded = pad_to_multiple(pixels, window, padding)
        return _tiled(padded, lr.shape[:2], ensemble(run), tile, overlap, window, upscale, progress)
    finally:
        model.train(was_training)


def _tiled(
    padded: Tensor,
    size: tuple[int, int],
    network: Callable[[Tensor], Tensor],
    tile: int,
    overlap: int,
    window: int,
    upscale: int,
    progress: bool,
) -> np.ndarray:
    height, width = (side * upscale for side in size)
    rows, columns = (plan_axis(side, tile, overlap, window, upscale) for side in padded.shape[-2:])
    sr = np.empty((height, width, 3), np.uint8)
    total = len(rows.starts) * len(columns.starts)
    with tqdm(total=total, desc="tiles", unit="tile", disable=not progress, leave=False) as bar:
        for top, strip in blend_strips(padded, network, rows, columns, upscale, bar.update):
            kept = sr[top : top + strip.shape[1]]
            kept[:] = to_image(strip[:, : kept.shape[0], :width])
    return sr


def _runner(model: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """The network as a function of an image on the CPU, in the model's own dtype and on its device."""
    weight = next(model.parameters(), torch.zeros(()))
    autocast = torch.autocast(weight.device.type, PRECISIONS[precision], enabled=precision != "float32")

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with autocast:
            return model(image.to(weight.device, weight.dtype)).float()

    return run


def _self_ensemble(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def ensemble(image: Tensor) -> Tensor:
        total = 0.0
        for index in range(8):
            total = total + dihedral_inverse(network(dihedral(image, index).contiguous()), index)
        return total / 8

    return ensemble


def dihedral(image: torch.Tensor, index: int) -> torch.Tensor:
    """One of the eight symmetries of a square: ``& 4`` transposes, then ``& 2`` flips rows, ``& 1`` columns.

    Args:
        image: ``[..., H, W]``.
        index: 0..7; 0 is the identity.
    """
    image = image.transpose(-2, -1) if index & 4 else image
    axes = [axis for axis, bit in ((-2, 2), (-1, 1)) if index & bit]
    return image.flip(axes) if axes else image


def dihedral_inverse(image: torch.Tensor, index: int) -> torch.Tensor:
    """Undo :func:`dihedral` with the same ``index``."""
    axes = [axis for axis, bit in ((-2, 2), (-1, 1)) if index & bit]
    image = image.flip(axes) if axes else image
    return image.transpose(-2, -1) if index & 4 else image


def window_pixels(model: nn.Module) -> int:
    """Sides are padded to a multiple of this many LR pixels: window times patch size; 1 without a window."""
    config = getattr(model, "config", None)
    return getattr(config, "window_size", 1) * getattr(config, "patch_size", 1)


def default_overlap(model: nn.Module | str) -> int:
    """LR pixels that tiles share: two windows, so that what a tile cannot see is far from what is kept of it.

    With one window of 48 the difference to the untiled result gathers along the borders of tiles
    (``data/results/tiles.csv``). Never below ``SMALLEST_OVERLAP``.
    """
    return max(SMALLEST_OVERLAP, 2 * window_pixels(model))


def _check_image(lr: np.ndarray) -> None:
    if not isinstance(lr, np.ndarray) or lr.dtype != np.uint8:
        raise TypeError(f"lr must be a uint8 array, not {getattr(lr, 'dtype', type(lr).__name__)}")
    if lr.ndim != 3 or lr.shape[2] != 3 or 0 in lr.shape:
        raise ValueError(f"lr must be an RGB image [H, W, 3], not {list(lr.shape)}")


def check_upscale(model: nn.Module | str, upscale: int | None) -> int:
    """The factor s of a model: its own, or what was asked for.

    Raises:
        ValueError: neither is known, they differ, or it is no positive integer; a name instead of a network.
    """
    if isinstance(model, str):
        if model != BICUBIC:
            raise ValueError(f'model must be "{BICUBIC}" or a network, not {model!r}; load a network first')
        own = None
    else:
        own = getattr(getattr(model, "config", None), "upscale", None)
    if upscale is None and own is None:
        raise ValueError("upscale must be given for this model")
    if upscale is not None and (isinstance(upscale, bool) or int(upscale) != upscale or upscale < 1):
        raise ValueError(f"upscale must be a positive integer, not {upscale}")
    if own is not None and upscale is not None and upscale != own:
        raise ValueError(f"upscale {upscale} was asked of a model that upscales by {own}")
    return int(own if own is not None else upscale)
