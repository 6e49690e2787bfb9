"""Differences of image quality with what they may be worth: over images and seeds, never two bare means.

Rows have the columns run, set, image, psnr_y (dB) and ssim_y, as :mod:`taylorir.experiments.run` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from taylorir.experiments.protocol import COMPARISONS, END_POINT, FLOOR, Comparison
from taylorir.report import BELOW_FLOOR, estimate, judge

MAIN = tuple(entry for entry in COMPARISONS if entry.experiment == "main")


def beside_published(
    rows: pd.DataFrame,
    bicubic: pd.DataFrame,
    published: pd.DataFrame,
    main: Sequence[Comparison] = MAIN,
    floor: Sequence[str] = FLOOR,
) -> pd.DataFrame:
    """The main runs by scale and set, means over seeds, between bicubic, the floor and what is published.

    Args:
        rows: of the main runs and of the floor.
        bicubic: rows of bicubic upscaling, one an image: set, upscale, psnr_y, ssim_y.
        published: set means: model, set, upscale, psnr_y, ssim_y.
        main: whose reference is SwinIR and whose other is TaylorSwinIR; default those of the mini tier.
        floor: names of the runs without a transformer.

    Returns:
        One row a scale, set and metric (psnr_y in dB, ssim_y): upscale, set, metric, seeds, bicubic, floor,
        swinir, taylorswinir, gain and published, the latter of "SwinIR-S" trained on DIV2K.
    """
    arms = {
        "floor": set(floor),
        "swinir": {run for entry in main for run in entry.reference},
        "taylorswinir": {run for entry in main for run in entry.other},
    }
    table = []
    for (upscale, name), of_set in rows[rows.run.isin(set.union(*arms.values()))].groupby(
        ["upscale", "set"], sort=False
    ):
        same = {"upscale": upscale, "set": name}
        for metric in ("psnr_y", "ssim_y"):
            row = {**same, "metric": metric}
            means = of_set.groupby("run")[metric].mean()
            by_arm = {arm: means[means.index.isin(runs)] for arm, runs in arms.items()}
            row["seeds"] = min(len(by_arm["swinir"]), len(by_arm["taylorswinir"]))
            row["bicubic"] = _select(bicubic, **same)[metric].mean()
            row |= {arm: values.mean() for arm, values in by_arm.items()}
            row["gain"] = row["taylorswinir"] - row["swinir"]
            row["published"] = _select(published, model="SwinIR-S", **same)[
                metric
            ].mean()  # NaN if there is none
            table.append(row)
    return pd.DataFrame(table).sort_values("upscale", kind="stable", ignore_index=True)


def _select(rows: pd.DataFrame, **values: object) -> pd.DataFrame:
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def with_rows(comparison: Comparison, rows: pd.DataFrame) -> Comparison:
    """The comparison of those pairs of runs that both have rows; maybe of none."""
    present = set(rows.run)
    pairs = zip(comparison.reference, comparison.other, strict=True)
    kept = [pair for pair in pairs if present.issuperset(pair)]
    return replace(comparison, reference=tuple(a for a, _ in kept), other=tuple(b for _, b in kept))


def image_differences(
    rows: pd.DataFrame, reference: Sequence[str], other: Sequence[str], metric: str = "psnr_y"
) -> pd.DataFrame:
    """``other`` minus ``reference`` of each image, for each pair of runs.

    Args:
        rows: see the top of the module.
        reference: names of runs, one a seed.
        other: as many, in the same order of seeds.
        metric: psnr_y or ssim_y.

    Returns:
        One row an image: set, image, then a column a pair (0, 1, ...). Images that a run lacks are left out.

    Raises:
        ValueError: the numbers of runs differ, or the pairs have no image in common.
    """
    if len(reference) != len(other):
        raise ValueError(f"reference and other must be as many, got {len(reference)} and {len(other)}")
    values = rows.pivot_table(index=["set", "image"], columns="run", values=metric, sort=False)
    missing = [name for name in (*reference, *other) if name not in values]
    if missing:
        raise ValueError(f"there are no rows of the run {missing[0]!r}")
    differences = pd.DataFrame(
        {pair: values[b] - values[a] for pair, (a, b) in enumerate(zip(reference, other, strict=True))}
    ).dropna()
    if differences.empty:
        raise ValueError(f"the runs {', '.join((*reference, *other))} have no image in common")
    return differences.reset_index()


def floor_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the floor: of the runs without a transformer, see ``protocol.FLOOR``."""
    return rows[rows.run.isin(FLOOR)]


def below_floor(rows: pd.DataFrame, floor: pd.DataFrame, metric: str = END_POINT) -> list[str]:
    """The runs that are not above the floor, on average over the images that both were measured on.

    Args:
        rows: see the top of the module.
        floor: rows of the floor, see :func:`floor_of`; its runs are averaged.
        metric: psnr_y or ssim_y.
    """
    keys = ["set", "image", "upscale"]
    others = rows[~rows["run"].isin(floor["run"])]
    beside = others.merge(floor.groupby(keys)[metric].mean().rename("floor"), on=keys)
    means = beside.groupby("run", sort=False)[[metric, "floor"]].mean()
    return means.index[means[metric] <= means["floor"]].tolist()


def compare(
    rows: pd.DataFrame,
    comparisons: Sequence[Comparison] = COMPARISONS,
    metric: str = END_POINT,
    *,
    floor: pd.DataFrame | None = None,
    by_set: bool = False,
) -> pd.DataFrame:
    """Each comparison over all images that both sides have, by the rule of ``taylorir.report.evidence``.

    Args:
        rows: see the top of the module.
        comparisons: what to subtract from what.
        metric: psnr_y or ssim_y.
        floor: rows of what a network must surpass to be judged (run, set, image, upscale, and the metric),
            see :func:`floor_of`; None judges all. A comparison with a floor of its own is held to that.
        by_set: a row a comparison and set, instead of one over the images of all sets.

    Returns:
        Columns experiment, label, set ("all", or its name), images, seeds, planned (seeds that the protocol
        fixed before), difference (mean over images and seeds, dB), low, high, error, freedom, p and
        detectable (see :class:`taylorir.report.Estimate`; NaN for one seed), seeds_low and
        seeds_high (the least and the largest of the seeds' mean differences), wins (share of images with a
        gain), barred, p_holm and verdict (see :func:`taylorir.report.judge`; Holm's correction is
        over the whole table).
        Comparisons whose runs have no rows are left out.
    """
    table = []
    for planned in comparisons:
        entry = with_rows(planned, rows)
        if not entry.reference:
            continue
        differences = image_differences(rows, entry.reference, entry.other, metric)
        parts = differences.groupby("set", sort=False) if by_set else [("all", differences)]
        for name, some in parts:
            pairs = some.drop(columns=["set", "image"])
            below = rows[rows.run.isin(entry.floor)] if entry.floor else floor
            table.append(
                {
                    "experiment": entry.experiment,
                    "label": entry.label,
                    "set": name,
                    "images": len(pairs),
                    "seeds": pairs.shape[1],
                    "planned": len(planned.reference),
                    **estimate(pairs.to_numpy())._asdict(),
                    "seeds_low": float(pairs.mean().min()),
                    "seeds_high": float(pairs.mean().max()),
                    "wins": float((pairs.mean(axis=1) > 0).mean()),
                    "barred": "" if below is None else _barred(rows, entry, some, below, metric),
                }
            )
    return judge(pd.DataFrame(table)) if table else pd.DataFrame()


def _barred(
    rows: pd.DataFrame, entry: Comparison, images: pd.DataFrame, floor: pd.DataFrame, metric: str
) -> str:
    """Why a comparison is not judged: a run that is not of the floor is not above it on these images."""
    keys = ["set", "image"]
    runs = rows[rows.run.isin({*entry.reference, *entry.other}) & ~rows.run.isin(floor.run)]
    of_runs = images[keys].merge(runs, on=keys)
    of_floor = images[keys].merge(floor[floor.upscale == of_runs.upscale.iloc[0]], on=keys)
    if of_floor.empty:
        return "no floor: not judged"
    above = of_runs.groupby("run")[metric].mean() > of_floor.groupby(keys)[metric].mean().mean()
    return "" if above.all() else BELOW_FLOOR
