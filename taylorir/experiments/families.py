"""The families of the field: where they attend, what a conversion does there, and what it costs and saves.

Each network has its published width, heads and windows, and one group of its blocks: depth changes nothing in
the peak of inference. The architectures come with ``spandrel``, which nothing else here needs:

    python -m taylorir.experiments.families survey data/results/family_survey.csv
    python -m taylorir.experiments.families memory data/results/family_memory.csv
    python -m taylorir.experiments.families time data/results/family_time.csv

Memory and operations are counted, so any machine gives them; times are measured and want a quiet one.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import nn

from taylorir.convert import survey, taylorize
from taylorir.cost import flops_of, machine_load, memory_of, time_calls
from taylorir.rows import provenance, write_rows

LR_SIZE = 96
SIDES = (8, 16, 32, 48)


@dataclass(frozen=True)
class Family:
    """How a network of others is built.

    Attributes:
        paper: on arXiv.
        settings: of its class, which spandrel keeps under the family's name.
        windows: the settings of its published windows.
        sides: of the square windows that its class can be built with. A converted network takes all.
    """

    paper: str
    settings: Mapping[str, object]
    windows: Mapping[str, object]
    sides: tuple[int, ...] = SIDES


_SWIN = {"img_size": LR_SIZE, "upscale": 2, "mlp_ratio": 2, "depths": [2], "num_heads": [6]}
_DIRECT = {"upsampler": "pixelshuffledirect"}
_DAT = {"img_size": LR_SIZE, "upscale": 2, "depth": [4], "num_heads": [6]}
_HAT = {"embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24}
_ATD = {"num_heads": [4], "embed_dim": 48, "category_size": 128, "num_tokens": 64, "reducted_dim": 8}
_GRL = {
    "img_size": LR_SIZE, "upscale": 2, "embed_dim": 64, "depths": [4], "num_heads_window": [2],
    "num_heads_stripe": [2], "mlp_ratio": 2, "stripe_shift": True, "anchor_window_down_factor": 2,
    "stripe_size": [8, 32],
}  # fmt: skip
_CRAFT = {"upscale": 2, "depths": [2], "num_heads": [6], "embed_dim": 48}

FAMILIES: dict[str, Family] = {
    "SwinIR": Family("2108.10257", _SWIN | _DIRECT | {"embed_dim": 60}, {"window_size": 8}),
    "SCUNet": Family("2203.13278", {"config": [2] * 7}, {}, sides=(8,)),  # they are no setting
    "HAT": Family("2205.04437", _SWIN | _HAT, {"window_size": 16}),
    "Swin2SR": Family("2209.11345", _SWIN | _DIRECT | {"embed_dim": 60}, {"window_size": 8}),
    "GRL": Family("2303.00748", _GRL | _DIRECT, {"window_size": 8}),
    # its masks are made for images of 64 x 64
    "RGT": Family(
        "2303.06373", _DAT | {"embed_dim": 180, "mlp_ratio": 2}, {"split_size": [8, 32]}, SIDES[:3]
    ),
    "OmniSR": Family("2304.10244", {"up_scale": 2, "num_feat": 64}, {"window_size": 8}),
    "CRAFT": Family("2308.05022", _CRAFT, {"window_size": 16, "split_size_0": 4, "split_size_1": 16}),
    "DAT": Family(
        "2308.03364",
        _DAT | _DIRECT | {"embed_dim": 60, "expansion_factor": 2, "resi_connection": "3conv"},
        {"split_size": [8, 32]},
    ),
    "ATD": Family("2401.08209", _SWIN | _DIRECT | _ATD, {"window_size": 16}),
    "DRCT": Family(
        "2404.00722",
        _SWIN | {"depths": [1], "embed_dim": 180, "gc": 32, "upsampler": "pixelshuffle"},
        {"window_size": 16},
    ),
}


def build(family: str, side: int | None = None) -> nn.Module:
    """A network of a family, in evaluation mode, with random weights.

    Args:
        family: a key of ``FAMILIES``.
        side: of its windows, in tokens; None for the published ones.

    Raises:
        ModuleNotFoundError: spandrel is missing.
    """
    about = FAMILIES[family]
    windows = about.windows
    if side is not None:
        windows = {name: [side, side] if name == "split_size" else side for name in windows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others write is theirs
        network = getattr(importlib.import_module(f"spandrel.architectures.{family}"), family)
        return network(**about.settings, **windows).eval()


def survey_rows() -> pd.DataFrame:
    """Where each family attends, with its published windows; equal sites are one row.

    Returns:
        Columns family, paper, those of :func:`taylorir.convert.survey` but for the module, sites (how many
        are equal), and the provenance columns.
    """
    found = []
    for family, about in FAMILIES.items():
        rows = survey(build(family), torch.empty(1, 3, LR_SIZE, LR_SIZE)).drop(columns="module")
        alike = rows.groupby(list(rows.columns), sort=False, dropna=False).size().reset_index(name="sites")
        alike.insert(0, "family", family)
        alike.insert(1, "paper", about.paper)
        found.append(alike.assign(**provenance()))
    return pd.concat(found, ignore_index=True)


def pair(family: str, side: int) -> dict[str, nn.Module]:
    """By method: the network with windows of ``side``, where its class takes them, and converted."""
    if side in FAMILIES[family].sides:
        softmax = build(family, side)
        return {"softmax": softmax, "taylor": taylorize(softmax, centre_keys=True)}
    return {"taylor": taylorize(build(family), centre_keys=True, window_size=side)}


def memory_rows() -> pd.DataFrame:
    """Peak memory and operations on LR images, by family, window and mode: counted, not run.

    Returns:
        Columns family, paper, window_size, lr_size, method ("softmax" or "taylor"), mode ("infer": one image,
        or "train": a step with two, as norms of batches want), peak_memory_mib, of which buffers_mib (masks
        and index maps), gmacs (products and convolutions of one image upscaled), and the provenance columns.
    """
    rows = []
    for family, about in FAMILIES.items():
        for side in SIDES:
            for method, model in pair(family, side).items():
                gmacs = round(flops_of(model, LR_SIZE) / 2e9, 3)
                for mode, batch in (("infer", 1), ("train", 2)):
                    peak = memory_of(model, LR_SIZE, mode, batch=batch)
                    row = {"family": family, "paper": about.paper, "window_size": side, "lr_size": LR_SIZE}
                    row |= {"method": method, "mode": mode}
                    row |= {"peak_memory_mib": round(peak.total / 2**20, 2)}
                    row |= {"buffers_mib": round(peak.parts["buffers"] / 2**20, 2)}
                    rows.append(row | {"gmacs": gmacs} | provenance())
    return pd.DataFrame(rows)


def time_rows(
    families: Sequence[str] = tuple(FAMILIES), *, lr_size: int = LR_SIZE, repeats: int = 3
) -> pd.DataFrame:
    """Time of inference on one LR image, softmax and converted in turns, by family and window.

    Returns:
        Columns family, paper, window_size, lr_size, method, latency_ms (median), cpu_ms (time of the
        processor, median), repeats, load, priority (of the machine), and the provenance columns.
    """
    image, rows = torch.rand(1, 3, lr_size, lr_size), []
    for family in families:
        for side in SIDES:
            models = pair(family, side)
            builds = [lambda model=model: lambda: _run(model, image) for model in models.values()]
            timings = time_calls(builds, seconds=0.0, min_repeats=repeats)
            stamp = machine_load() | provenance(dtype=torch.float32)
            for method, timing in zip(models, timings, strict=True):
                row = {"family": family, "paper": FAMILIES[family].paper}
                row |= {"window_size": side, "lr_size": lr_size}
                row |= {"method": method, "latency_ms": round(timing.latency_ms, 2)}
                rows.append(row | {"cpu_ms": round(timing.cpu_ms, 2), "repeats": timing.repeats} | stamp)
    return pd.DataFrame(rows)


@torch.inference_mode()
def _run(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return model(image)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("survey")
def _survey(out: Path) -> None:
    """Where each family attends."""
    write_rows(out, survey_rows())


@app.command("memory")
def _memory(out: Path) -> None:
    """Count the memory and the operations of all families."""
    write_rows(out, memory_rows())


@app.command("time")
def _time(
    out: Path,
    family: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of each network, after a warm-up.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
) -> None:
    """Time families; all of them take minutes, and want a machine that does nothing else."""
    torch.set_num_threads(threads)
    write_rows(out, time_rows(family or tuple(FAMILIES), repeats=repeats))


if __name__ == "__main__":
    app()
