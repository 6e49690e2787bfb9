"""What the restoration runs say: their means beside the input, their differences with intervals.

``python -m taylorir.experiments.restoration --data-root DIR`` measures the degraded images themselves, which
a network must beat; the runs are done by ``python -m taylorir.experiments run --tier restoration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from torch import nn

from taylorir.evaluation import evaluate
from taylorir.experiments.differences import compare
from taylorir.experiments.protocol_restoration import (
    ARMS,
    RESTORATION_COMPARISONS,
    SEEDS,
    TASKS,
    restoration_run,
)
from taylorir.networks import ForeignConfig, ForeignNetwork
from taylorir.report import judge
from taylorir.rows import PROVENANCE_COLUMNS, write_rows


def restoration_means(rows: pd.DataFrame, inputs: pd.DataFrame) -> pd.DataFrame:
    """Mean PSNR-Y in dB of each task and set: of the input and of each arm, over images and seeds.

    Args:
        rows: run, set, image, psnr_y, as ``quality_restoration.csv`` has them.
        inputs: task, set, image, psnr_y of the degraded images.

    Returns:
        Columns task, set, images, input and the arms (NaN without rows), and seeds (of the arm with fewest).
    """
    table = []
    for task in TASKS:
        of_arms = {arm: [restoration_run(arm, task, seed) for seed in SEEDS] for arm in ARMS}
        for name, of_set in inputs[inputs["task"] == task].groupby("set", sort=False):
            mine = rows[rows["set"] == name]
            arms = {arm: mine[mine["run"].isin(runs)] for arm, runs in of_arms.items()}
            row = {"task": task, "set": name, "images": len(of_set), "input": of_set["psnr_y"].mean()}
            row |= {arm: some["psnr_y"].mean() for arm, some in arms.items()}
            table.append(row | {"seeds": min(some["run"].nunique() for some in arms.values())})
    return pd.DataFrame(table)


def compare_restoration(rows: pd.DataFrame) -> pd.DataFrame:
    """Each comparison of the protocol by the rule of :func:`taylorir.experiments.compare`.

    The floor of a task are its own linear filters; p-values are corrected over the tasks together.

    Returns:
        As there; a comparison without rows has no difference, no seeds, and the verdict "not measured".
    """
    known = []
    for task in TASKS:
        floor = rows[rows["run"].isin([restoration_run("linear", task, seed) for seed in SEEDS])]
        of_task = [comparison for comparison in RESTORATION_COMPARISONS if comparison.experiment == task]
        known.append(compare(rows, of_task, floor=floor))
    measured = pd.concat(known, ignore_index=True)
    order = pd.DataFrame({"experiment": c.experiment, "label": c.label} for c in RESTORATION_COMPARISONS)
    columns = ["experiment", "label"]
    table = order.merge(judge(measured), on=columns, how="left") if len(measured) else order
    table = table.reindex(columns=[*columns, *_COLUMNS])
    missing = table["seeds"].isna()
    table["verdict"] = table["verdict"].astype(object).mask(missing, "not measured")
    return table.fillna({"seeds": 0, "images": 0}).astype({"seeds": int, "images": int})


def said(row: Mapping[str, object]) -> str:
    """A row of :func:`compare_restoration` in words."""
    if not row["seeds"]:
        return str(row["verdict"])
    interval = f", {row['low']:+.2f} to {row['high']:+.2f}" if row["seeds"] > 1 else ""
    return f"{row['difference']:+.2f} dB over SwinIR (seeds: {row['seeds']}{interval}): {row['verdict']}"


_COLUMNS = (
    "images", "seeds", "planned", "difference", "low", "high", "error", "freedom", "p", "detectable",
    "seeds_low", "seeds_high", "wins", "barred", "p_holm", "verdict",
)  # fmt: skip


def input_rows(data_root: Path | None = None) -> pd.DataFrame:
    """PSNR-Y and SSIM-Y of the degraded images of each task: task, set, image, degradation and provenance."""
    rows = []
    for task, settings in TASKS.items():
        unchanged = ForeignNetwork(nn.Identity(), ForeignConfig("input", 1, settings.channels))
        for name in settings.sets:
            measured = evaluate(unchanged, name, data_root=data_root, degradation=settings.degradation)
            rows.append(measured.assign(task=task))
    columns = ["task", "set", "image", "degradation", "psnr_y", "ssim_y", *PROVENANCE_COLUMNS]
    return pd.concat(rows)[columns].round({"psnr_y": 4, "ssim_y": 6})


def _main(
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image sets.")] = None,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("data/results/restoration_input.csv"),
) -> None:
    """Measure the degraded images themselves."""
    write_rows(out, input_rows(data_root=data_root))


if __name__ == "__main__":
    typer.run(_main)
