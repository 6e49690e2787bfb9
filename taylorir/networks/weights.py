"""Networks by name: weights of ``data/weights``, checkpoints, files of official weights."""

from __future__ import annotations

import csv
import difflib
import hashlib
import logging
import math
import os
import re
from pathlib import Path

import torch
from torch import nn

from taylorir.networks.checkpoint import load_checkpoint
from taylorir.networks.swinir import SwinIR
from taylorir.networks.variants import VARIANTS
from taylorir.rows import RESULTS_FOLDER, WEIGHTS_FOLDER

logger = logging.getLogger(__name__)


def load_network(name: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> SwinIR:
    """A trained network. A variant is never given with random weights; :func:`build_model` does that.

    Args:
        name: of a variant, or of other weights in ``data/weights``; or what
            :func:`taylorir.networks.load_checkpoint` takes: a file, or a folder of a training. A name means
            the same wherever one is: what lies here under such a name is ``./name``, or a ``Path``.
        device: where the network shall live.

    Returns:
        The network in evaluation mode; ``model.config`` says what it is.

    Raises:
        ValueError: none of these, a variant without weights, or weights of another architecture.
        FileNotFoundError: it looks like a path and nothing is there.
    """
    name, path, may_be_name = os.fspath(name), Path(name), isinstance(name, str)
    stored = WEIGHTS_FOLDER / f"{name}.safetensors"
    if may_be_name and path.name == name and stored.is_file():
        if path.exists():
            logger.warning("%s is the weights of this package; for what lies here, write ./%s", name, name)
        return load_checkpoint(stored, device=device)
    if name in VARIANTS and not path.exists():
        raise ValueError(
            f"there are no trained weights for {name!r} in {WEIGHTS_FOLDER}: "
            f"train them with 'taylorir train {name} --out DIR', then give DIR"
        )
    if path.exists():
        return load_checkpoint(path, device=device)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"no such model file: {name}")
    close = difflib.get_close_matches(name, [*VARIANTS, *_stored()], n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "give a variant or a checkpoint"
    raise ValueError(f"unknown model {name!r}; {hint}")


def default_model(upscale: int, task: str = "") -> str:
    """The name of the weights in ``data/weights`` that serve a factor best.

    Of the largest networks, of either kind, it is the one whose rows say the highest PSNR-Y on the held-out
    images of its training; without rows a TaylorSwinIR before a SwinIR, the first by name. Where there is a
    task ("denoise", "jpeg"), which enlarges nothing, they are those of the task.

    Raises:
        ValueError: there are none.
    """
    held_out = _held_out_psnr()
    for size in ("color", "mini") if task else ("m", "s", "mid", "mini", "tiny"):
        stem = f"{task}_{size}" if task else f"{size}_x{upscale}"
        name = re.compile(rf"(taylor)?swinir_{stem}(_\d+k)?(_s\d+)?")
        fitting = sorted(filter(name.fullmatch, _stored()), key=lambda run: run.startswith("swinir"))
        if fitting:
            return max(fitting, key=lambda run: held_out.get(run, -math.inf))
    what = task or f"x{upscale}"
    raise ValueError(
        f"no trained weights for {what} in {WEIGHTS_FOLDER}: give --model bicubic or a checkpoint"
    )


def _held_out_psnr() -> dict[str, float]:
    """PSNR-Y on the held-out images at the end of each training, in dB, by run; read without pandas."""
    found = {}
    for path in RESULTS_FOLDER.glob("quality_*_runs.csv"):
        with path.open(encoding="utf-8", newline="") as rows:
            found |= {row["run"]: float(row["held_out_psnr_y"] or "nan") for row in csv.DictReader(rows)}
    return {run: psnr for run, psnr in found.items() if not math.isnan(psnr)}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and values of all parameters, the first 10 hex digits."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:10]


def _stored() -> list[str]:
    """Names of the weights in ``data/weights``."""
    return sorted(file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors"))
