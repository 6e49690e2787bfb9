"""Super-resolve an image of any size, and measure a model on a set by the protocol: one row an image."""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from taylorir.datasets import NamedImage, image_files, iterate_images, make_pair
from taylorir.evaluation.tiles import auto_tile, blend_strips, parse_memory, plan_axis, probe_sides
from taylorir.images import PADDING_MODES, imresize, pad_to_multiple, psnr, ssim, to_image
from taylorir.networks import VARIANTS, load_checkpoint, load_released
from taylorir.rows import provenance

BICUBIC = "bicubic"
WEIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "data" / "weights"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST_OVERLAP = 32


def load_model(name: str, *, device: str | torch.device = "cpu") -> nn.Module | str:
    """What the command line's MODEL stands for. A variant is never evaluated with random weights.

    Args:
        name: ``bicubic``; the name of a variant or of other weights in ``data/weights``; a ``.safetensors``
            file or a folder that :func:`taylorir.training.train` wrote; or a ``.pth`` file that SwinIR's
            authors released.
        device: where the network shall live.

    Returns:
        ``"bicubic"``, or a network in evaluation mode.

    Raises:
        ValueError: none of these, a variant without weights, or weights of another architecture.
        FileNotFoundError: it looks like a path and nothing is there.
    """
    if name == BICUBIC:
        return BICUBIC
    stored = WEIGHTS_FOLDER / f"{name}.safetensors"
    if Path(name).name == name and stored.is_file():
        return load_checkpoint(stored, device=device)
    path = Path(name)
    if name in VARIANTS and not path.exists():
        raise ValueError(
            f"there are no trained weights for {name!r} in {WEIGHTS_FOLDER}: "
            f"train them with 'taylorir train {name} --out DIR', then give DIR"
        )
    if path.is_file() and path.suffix in (".pth", ".pt"):
        return load_released(path).to(device)
    if path.exists():
        return load_checkpoint(path, device=device)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"no such model file: {name}")
    known = [BICUBIC, *VARIANTS, *sorted(file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors"))]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "give bicubic, a variant or a checkpoint"
    raise ValueError(f"unknown model {name!r}; {hint}")


def default_model(upscale: int) -> str:
    """The name of the weights in ``data/weights`` that serve a factor: the largest TaylorSwinIR first.

    Of runs that differ in their seed only (``..._s0``, ``..._s1``), the first is taken.

    Raises:
        ValueError: there are none.
    """
    stored = sorted(file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors"))
    for size in ("m", "s", "mini", "tiny"):
        for family in ("taylorswinir", "swinir"):
            name = re.compile(rf"{family}_{size}_x{upscale}(_s\d+)?")
            fitting = [stem for stem in stored if name.fullmatch(stem)]
            if fitting:
                return fitting[0]
    raise ValueError(
        f"no trained weights for x{upscale} in {WEIGHTS_FOLDER}: give --model bicubic or a checkpoint"
    )


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
    upscale = _check_upscale(model, upscale)
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


def _check_upscale(model: nn.Module | str, upscale: int | None) -> int:
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


def evaluate(
    model: nn.Module | str,
    dataset: str | Iterable[NamedImage],
    upscale: int | None = None,
    *,
    data_root: str | os.PathLike | None = None,
    name: str | None = None,
    tile: int | str | None = None,
    overlap: int | None = None,
    self_ensemble: bool = False,
    padding: str = "reflect",
    memory: int | str | None = None,
    precision: str = "float32",
    seed: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """PSNR and SSIM of a model on a set of images, by the protocol of the field.

    HR is cropped to a multiple of s, LR is made by MATLAB's bicubic on 8 bits, the result is rounded to 8
    bits, both are turned to BT.601 luma, and s pixels are shaved from each border.

    Args:
        model: ``"bicubic"`` or a network.
        dataset: the name of a set (see :func:`taylorir.datasets.load_images`), or images.
        upscale: s; may be left out for a network that knows its own.
        data_root: folder of the sets.
        name: what to write in the column ``model``.
        tile: see :func:`super_resolve`, as for ``overlap``, ``self_ensemble``, ``padding``, ``memory``,
            ``precision``.
        overlap: see ``tile``.
        self_ensemble: see ``tile``.
        padding: see ``tile``.
        memory: see ``tile``.
        precision: see ``tile``.
        seed: of the training run that the model comes from, for the provenance.
        progress: show a bar over the images.

    Returns:
        A row an image: model, set, image, height, width (of the cropped HR), upscale, psnr_y (dB), ssim_y,
        seconds (upscaling only), padding, tile, overlap, self_ensemble, and the provenance columns.

    Raises:
        ValueError: an unknown set or option, or an image too small to be measured.
        FileNotFoundError: the set's folder is missing or empty.
    """
    upscale = _check_upscale(model, upscale)
    if isinstance(dataset, str):
        set_name, images = dataset, iterate_images(dataset, data_root)
        total = len(image_files(dataset, data_root))
    else:
        images = list(dataset)
        set_name, total = "images", len(images)
    if name is None:
        name = model if isinstance(model, str) else type(model).__name__.lower()
    device = "cpu" if isinstance(model, str) else next((p.device for p in model.parameters()), "cpu")
    dtype = "uint8" if isinstance(model, str) else precision
    where = provenance(device=device, dtype=dtype, seed=seed)
    overlap = default_overlap(model) if overlap is None else overlap
    tiles = {"tile": "none" if tile is None else str(tile), "overlap": 0 if tile is None else overlap}
    if isinstance(model, str):
        tiles, padding, self_ensemble = {"tile": "none", "overlap": 0}, "none", False
    rows = []
    for item in tqdm(
        images, total=total, desc=f"{name} {set_name} x{upscale}", disable=not progress, leave=False
    ):
        try:
            lr, hr = make_pair(item.image, upscale)
            start = time.perf_counter()
            sr = super_resolve(
                model,
                lr,
                upscale=upscale,
                tile=tile,
                overlap=overlap,
                self_ensemble=self_ensemble,
                padding="reflect" if isinstance(model, str) else padding,
                memory=memory,
                precision=precision,
            )
            seconds = time.perf_counter() - start
            measured = {
                "psnr_y": psnr(sr, hr, crop_border=upscale),
                "ssim_y": ssim(sr, hr, crop_border=upscale),
            }
        except ValueError as error:
            raise ValueError(f"{set_name}/{item.name}: {error}") from None
        row = {
            "model": name,
            "set": set_name,
            "image": item.name,
            "height": hr.shape[0],
            "width": hr.shape[1],
        }
        row |= {"upscale": upscale, **measured, "seconds": round(seconds, 4)}
        rows.append(row | {"padding": padding, **tiles, "self_ensemble": self_ensemble} | where)
    return pd.DataFrame(rows)
