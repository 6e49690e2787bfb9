"""The families of the field: where they attend, what a conversion does there, and the memory that it saves.

Each network has its published width, heads and windows, and one group of its blocks: depth changes nothing in
the peak of inference. The architectures come with ``spandrel``, which nothing else here needs:

    python -m taylorir.experiments.families survey data/results/family_survey.csv
    python -m taylorir.experiments.families memory data/results/family_memory.csv
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import typer
from torch import nn

from taylorir.convert import survey, taylorize
from taylorir.cost import memory_of
from taylorir.rows import provenance, write_atomic

LR_SIZE = 96
SIDES = (8, 16, 32, 48)


@dataclass(frozen=True)
class Family:
    """How a network of others is built.

    Attributes:
        paper: on arXiv.
        settings: of its class, which spandrel keeps under the family's name.
        windows: the settings of its published windows.
        sides: of the square windows that it can be built with instead.
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
}  # fmt: skip
_CRAFT = {"upscale": 2, "depths": [2], "num_heads": [6], "embed_dim": 48}

FAMILIES: dict[str, Family] = {
    "SwinIR": Family("2108.10257", _SWIN | _DIRECT | {"embed_dim": 60}, {"window_size": 8}),
    "SCUNet": Family("2203.13278", {"config": [2] * 7}, {}, sides=()),
    "HAT": Family("2205.04437", _SWIN | _HAT, {"window_size": 16}),
    "Swin2SR": Family("2209.11345", _SWIN | _DIRECT | {"embed_dim": 60}, {"window_size": 8}),
    "GRL": Family("2303.00748", _GRL | _DIRECT, {"window_size": 8, "stripe_size": [8, 32]}, sides=()),
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


def memory_rows() -> pd.DataFrame:
    """Peak memory of inference on one LR image, by family and window.

    Returns:
        Columns family, paper, window_size, lr_size, method ("softmax" or "taylor"), peak_memory_mib, of which
        buffers_mib (masks and index maps), and the provenance columns.
    """
    rows = []
    for family, about in FAMILIES.items():
        for side in about.sides:
            softmax = build(family, side)
            for method, model in (("softmax", softmax), ("taylor", taylorize(softmax, centre_keys=True))):
                peak = memory_of(model, LR_SIZE, "infer")
                row = {"family": family, "paper": about.paper, "window_size": side, "lr_size": LR_SIZE}
                row |= {"method": method, "peak_memory_mib": round(peak.total / 2**20, 2)}
                rows.append(row | {"buffers_mib": round(peak.parts["buffers"] / 2**20, 2)} | provenance())
    return pd.DataFrame(rows)


def _write(rows: pd.DataFrame, out: Path) -> None:
    content = rows.to_csv(index=False, lineterminator="\n").encode()
    write_atomic(out, lambda file: file.write(content))


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("survey")
def _survey(out: Path) -> None:
    """Where each family attends."""
    _write(survey_rows(), out)


@app.command("memory")
def _memory(out: Path) -> None:
    """Count the memory of all families."""
    _write(memory_rows(), out)


if __name__ == "__main__":
    app()
