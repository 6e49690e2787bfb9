"""Super-resolve one image of any size: padding, tiles, the self-ensemble."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from taylorir.evaluation.memory_limit import choose_tile, parse_memory, probe_sides, tile_cost
from taylorir.evaluation.tiles import blend_tiles, plan_axis
from taylorir.images import PADDING_MODES, imresize, pad_to_multiple, padded_indices
from taylorir.networks import image_channels, load_network

#: The name that stands for MATLAB's bicubic where a network is asked for.
BICUBIC = "bicubic"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST_OVERLAP = 32


class NonFiniteError(ValueError):
    """A network returned NaN or infinity; clipped to 8 bits that would be a black picture."""


def load_model(name: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> nn.Module | str:
    """``"bicubic"`` itself, or what :func:`taylorir.networks.load_network` makes of the name.

    Raises:
        ValueError, FileNotFoundError: as that function.
    """
    return BICUBIC if name == BICUBIC else load_network(name, device=device)


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
        model: ``"bicubic"``, or a network from ``[1, C, H, W]`` to ``[1, C, sH, sW]``, both 0..1.
        lr: uint8 or uint16 ``[H, W, C]``; C is 3 (RGB), or 1 for a grey network (``config.in_chans``).
        upscale: s; needed for bicubic, and for a network without ``config.upscale``.
        tile: side of a tile in LR pixels, rounded down to a multiple of the window; ``"auto"``: the largest
            that ``memory`` allows; None: the whole image at once.
        overlap: least number of LR pixels that neighbouring tiles share; None: :func:`default_overlap`.
        self_ensemble: average over the eight flips and rotations.
        padding: ``reflect``, or ``flip`` (SwinIR's test script; see :func:`taylorir.images.pad_to_multiple`).
        memory: what the process may hold on the CPU, or the network on a GPU, in bytes or as ``"2GiB"``;
            None: with ``tile="auto"`` half of what is free.
        precision: ``float32``, ``bfloat16`` or ``float16`` (autocast; weights stay as they are).
        progress: show a bar over the tiles.

    Returns:
        ``[sH, sW, C]`` of the dtype of ``lr``: clipped and rounded.

    Raises:
        TypeError: ``lr`` is neither a uint8 nor a uint16 array.
        ValueError: ``lr`` is no image of the network's channels, an unknown option, an ``upscale`` that is
            not the model's, or more memory is needed than is allowed.
        NonFiniteError: the network returned NaN or infinity.
    """
    _check_image(model, lr)
    upscale = check_upscale(model, upscale)
    sr = np.empty((lr.shape[0] * upscale, lr.shape[1] * upscale, lr.shape[2]), lr.dtype)
    parts = super_resolved_parts(
        model,
        lr,
        upscale=upscale,
        tile=tile,
        overlap=overlap,
        self_ensemble=self_ensemble,
        padding=padding,
        memory=memory,
        precision=precision,
        progress=progress,
        reserved=sr.nbytes,
    )
    for top, left, part in parts:
        sr[top : top + part.shape[0], left : left + part.shape[1]] = part
    return sr


def super_resolved_parts(
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
    reserved: int = 0,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The same as :func:`super_resolve`, part by part, so that the whole is held where the caller wants it.

    Args:
        model, lr, upscale, tile, overlap, self_ensemble, padding, memory, precision, progress: as there.
        reserved: bytes that the caller will fill while the parts come; they count against ``memory``.

    Yields:
        (first row, first column, ``[H', W', C]`` of the dtype of ``lr``). The parts cover the result without
        overlap.

    Raises:
        TypeError, ValueError: as there.
    """
    _check_image(model, lr)
    upscale = check_upscale(model, upscale)
    if padding not in PADDING_MODES:
        raise ValueError(f"padding must be one of {', '.join(PADDING_MODES)}, not {padding!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if not (tile is None or tile == "auto" or isinstance(tile, int)):
        raise ValueError(f'tile must be a number of pixels, "auto" or None, not {tile!r}')
    promised = None if memory is None else parse_memory(memory)
    if isinstance(model, str):
        yield 0, 0, imresize(lr, float(upscale))
        return
    window = window_pixels(model)
    multiple = getattr(getattr(model, "config", None), "multiple", window)  # of an image that is not tiled
    overlap = default_overlap(model) if overlap is None else overlap
    rows, columns = (padded_indices(side, window, padding) for side in lr.shape[:2])
    size = (len(rows), len(columns))
    run = _runner(model, precision, upscale)
    ensemble = _self_ensemble if self_ensemble else (lambda network: network)
    was_training = model.training
    model.eval()
    try:
        if tile == "auto" and promised is None and max(lr.shape[:2]) <= probe_sides(window)[1]:
            tile = None
        if tile == "auto" or promised is not None:
            cost = tile_cost(model, window=window, overlap=overlap, upscale=upscale, channels=lr.shape[2])
            tile = choose_tile(cost, size, tile, memory=promised, reserved=reserved)
        if tile is None:

            def whole(image: Tensor) -> Tensor:
                height, width = image.shape[-2:]
                padded = pad_to_multiple(image, multiple, padding)
                return run(padded)[..., : height * upscale, : width * upscale]

            yield 0, 0, _rounded(ensemble(whole)(_cut(lr))[0].cpu(), lr.dtype)
            return
        axes = [plan_axis(side, tile, overlap, window, upscale) for side in size]
        total = len(axes[0].starts) * len(axes[1].starts)
        height, width = (side * upscale for side in lr.shape[:2])
        with tqdm(total=total, desc="tiles", unit="tile", disable=not progress, leave=False) as bar:
            for top, left, part in blend_tiles(
                lambda vertical, horizontal: _cut(lr, rows[vertical], columns[horizontal]),
                ensemble(run),
                *axes,
                upscale,
                bar.update,
                channels=lr.shape[2],
            ):
                part = part[:, : max(height - top, 0), : max(width - left, 0)]
                if part.numel():
                    yield top, left, _rounded(part, lr.dtype)
    finally:
        model.train(was_training)


def _cut(lr: np.ndarray, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> Tensor:
    """Rows and columns of an image as float ``[1, C, H, W]``, 0..1."""
    pixels = lr if rows is None else lr[rows[:, None], columns]
    scaled = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    scaled /= np.iinfo(lr.dtype).max
    return torch.from_numpy(scaled)[None]


@torch.inference_mode()
def _rounded(part: Tensor, dtype: np.dtype) -> np.ndarray:
    """Float ``[C, H, W]`` to integers ``[H, W, C]``, 0..1 to the whole range. The tensor is overwritten."""
    scaled = part.clamp_(0, 1).mul_(np.iinfo(dtype).max).round_()
    return scaled.permute(1, 2, 0).numpy().astype(dtype)


def _runner(model: nn.Module, precision: str, upscale: int) -> Callable[[Tensor], Tensor]:
    """The network as a function of an image on the CPU, in the model's own dtype and on its device."""
    weight = next(model.parameters(), torch.zeros(()))
    autocast = torch.autocast(weight.device.type, PRECISIONS[precision], enabled=precision != "float32")

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with autocast:
            out = model(image.to(weight.device, weight.dtype)).float()
        channels, height, width = image.shape[-3:]
        if out.shape != (1, channels, height * upscale, width * upscale):
            raise ValueError(
                f"the model turns [1, {channels}, {height}, {width}] into {list(out.shape)}, "
                f"which is not such an image upscaled by {upscale}"
            )
        if not math.isfinite(out.sum(dtype=torch.float64)):
            raise NonFiniteError(f"the network returns NaN or infinity in {precision}")
        return out

    return run


def _self_ensemble(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    @torch.inference_mode()
    def ensemble(image: Tensor) -> Tensor:
        total = network(image) / 8
        for index in range(1, 8):
            total.add_(dihedral_inverse(network(dihedral(image, index).contiguous()), index), alpha=1 / 8)
        return total

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
    """The grid of windows in LR pixels, window times patch size, or 1 without a window.

    What is tiled is padded to a multiple of it.
    """
    config = getattr(model, "config", None)
    return getattr(config, "window_size", 1) * getattr(config, "patch_size", 1)


def default_overlap(model: nn.Module | str) -> int:
    """LR pixels that tiles share: two windows, so that what a tile cannot see is far from what is kept of it.

    With one window of 48 the difference to the untiled result gathers along the borders of tiles
    (``data/results/tiles.csv``). Never below ``SMALLEST_OVERLAP``.
    """
    return max(SMALLEST_OVERLAP, 2 * window_pixels(model))


def _check_image(model: nn.Module | str, lr: np.ndarray) -> None:
    if not isinstance(lr, np.ndarray) or lr.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"lr must be a uint8 or uint16 array, not {getattr(lr, 'dtype', type(lr).__name__)}")
    channels = (1, 3) if isinstance(model, str) else (image_channels(model),)
    if lr.ndim != 3 or lr.shape[2] not in channels or 0 in lr.shape:
        kind = "a grey" if channels == (1,) else "an RGB"
        raise ValueError(f"lr must be {kind} image [H, W, {channels[-1]}], not {list(lr.shape)}")


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
