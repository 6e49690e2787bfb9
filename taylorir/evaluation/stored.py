"""What is known of the stored networks: their records, and the rows that were measured with them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from taylorir.rows import RESULTS_FOLDER, WEIGHTS_FOLDER, read_rows

COLUMNS = ("model", "upscale", "parameters", "trained_on", "iterations", "set5_psnr_y")
QUALITY_COLUMNS = ("run", "set", "image", "upscale", "psnr_y")


def stored_record(weights: Path) -> dict[str, Any]:
    """What the header of a weights file says of its network and training.

    Raises:
        ValueError: it says nothing.
    """
    with safe_open(weights, "np") as file:
        header = file.metadata() or {}
    if "taylorir" not in header:
        raise ValueError(f"{weights} does not say how it was trained: its header has no record")
    return json.loads(header["taylorir"])


def stored_models(folder: Path = WEIGHTS_FOLDER, results: Path = RESULTS_FOLDER) -> pd.DataFrame:
    """One row a network whose weights lie in a folder; torch is not needed.

    Args:
        folder: of the ``.safetensors`` files.
        results: folder of the measured rows.

    Returns:
        Columns ``COLUMNS``: name, s, learned numbers, training sets, steps of the optimiser, and the mean
        PSNR-Y on Set5 in dB (missing where nobody measured it).
    """
    measured = quality_rows(results)
    set5 = measured[measured["set"] == "Set5"].groupby("run")["psnr_y"].mean()
    rows = []
    for path in sorted(folder.glob("*.safetensors")):
        record = stored_record(path)
        with safe_open(path, "np") as file:
            tensors = [file.get_slice(name) for name in file.keys()]
            learned = [tensor.get_shape() for tensor in tensors if tensor.get_dtype() == "F32"]
        training = record.get("train", {})
        rows.append(
            {
                "model": path.stem,
                "upscale": record["model"]["upscale"],
                "parameters": sum(map(math.prod, learned)),
                "trained_on": ", ".join(training.get("datasets", ())),
                "iterations": record.get("step"),
                "set5_psnr_y": set5.get(path.stem),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def quality_rows(results: Path = RESULTS_FOLDER) -> pd.DataFrame:
    """All rows of trained networks, one an image, among their columns ``QUALITY_COLUMNS``."""
    frames = [read_rows(path) for path in sorted(results.glob("quality_*.csv"))]
    found = [frame for frame in frames if set(QUALITY_COLUMNS) <= set(frame)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(QUALITY_COLUMNS))
