"""Differences of image quality with what they may be worth: over images, over seeds, never two bare means.

Rows have the columns run, set, image, psnr_y (dB) and ssim_y, as :mod:`taylorir.experiments.run` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from taylorir.experiments.protocol import COMPARISONS, Comparison

CONFIDENCE = 0.95


def set_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean PSNR-Y and SSIM-Y of each run on each set; columns run, set, images, psnr_y, ssim_y."""
    grouped = rows.groupby(["run", "set"], sort=False)
    means = grouped[["psnr_y", "ssim_y"]].mean()
    return means.assign(images=grouped.size()).reset_index()


def beside_published(rows: pd.DataFrame, bicubic: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The main runs by scale and set, means over seeds, between bicubic and the published lightweight SwinIR.

    Args:
        rows: of the main runs.
        bicubic: rows of bicubic upscaling, one an image: set, upscale, psnr_y, ssim_y.
        published: set means: model, set, upscale, psnr_y, ssim_y.

    Returns:
        One row a scale, set and metric (psnr_y in dB, ssim_y): upscale, set, metric, seeds, bicubic, swinir,
        taylorswinir, gain and published, the latter of "SwinIR-S" trained on DIV2K.
    """
    main = [entry for entry in COMPARISONS if entry.experiment == "main"]
    arms = {
        "swinir": {run for entry in main for run in entry.reference},
        "taylorswinir": {run for entry in main for run in entry.other},
    }
    table = []
    for (upscale, name), of_set in rows.groupby(["upscale", "set"], sort=False):
        same = {"upscale": upscale, "set": name}
        for metric in ("psnr_y", "ssim_y"):
            row = {**same, "metric": metric}
            means = of_set.groupby("run")[metric].mean()
            by_arm = {arm: means[means.index.isin(runs)] for arm, runs in arms.items()}
            row["seeds"] = min(map(len, by_arm.values()))
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


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % t-interval of the mean of ``values``; at least two are needed.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def seed_noise(rows: pd.DataFrame, comparison: Comparison = COMPARISONS[0], metric: str = "psnr_y") -> float:
    """How far two runs that differ by their seed alone may lie apart on average over images (dB).

    Twice the standard deviation of the difference of two such runs, from the spread over seeds within each
    arm of a comparison that has several seeds, on the images that all its runs have.

    Raises:
        ValueError: the comparison has fewer than two seeds with rows.
    """
    deviations = []
    for names in (comparison.reference, comparison.other):
        values = rows[rows.run.isin(names)].pivot_table(index=["set", "image"], columns="run", values=metric)
        means = values.dropna().mean()
        if len(means) < 2:
            raise ValueError(f"the spread over seeds needs rows of at least two of {', '.join(names)}")
        deviations.append(float(means.var(ddof=1)))
    return 2 * float(np.sqrt(2 * np.mean(deviations)))


def compare(
    rows: pd.DataFrame,
    comparisons: Sequence[Comparison] = COMPARISONS,
    metric: str = "psnr_y",
    *,
    floor: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Each comparison over all images that both sides have.

    Args:
        rows: see the top of the module.
        comparisons: what to subtract from what.
        metric: psnr_y or ssim_y.
        floor: rows of bicubic upscaling (set, image, upscale, and the metric). Where either side is below it
            on average, the networks have not learnt to interpolate yet: the verdict is "cannot say".

    Returns:
        Columns experiment, label, images, seeds, difference (mean over images and seeds, dB), low and high
        (95 % paired t-interval over images of the mean over seeds), seeds_low and seeds_high (the least and
        the largest of the seeds' mean differences), wins (share of images with a gain), noise (of the seed on
        these images, dB; NaN with several seeds), verdict. Comparisons
        whose runs have no rows are left out.

        The verdict is "better" or "worse" where the interval over images excludes zero and the difference
        exceeds the noise of the seeds (with several seeds: where all of them agree in sign); else "cannot
        say".
    """
    table = []
    for entry in (with_rows(comparison, rows) for comparison in comparisons):
        if not entry.reference:
            continue
        differences = image_differences(rows, entry.reference, entry.other, metric)
        pairs = differences.drop(columns=["set", "image"])
        by_image, by_seed = pairs.mean(axis=1), pairs.mean()
        low, high = interval(by_image)
        noise = np.nan
        mean = float(by_image.mean())
        if len(by_seed) > 1:
            agreed = bool((np.sign(by_seed) == np.sign(mean)).all())
        else:
            noise = seed_noise(rows.merge(differences[["set", "image"]]), metric=metric)
            agreed = abs(mean) > noise
        learnt = floor is None or _above(rows, entry, differences, floor, metric)
        sure = agreed and learnt and (low > 0 or high < 0)
        table.append(
            {
                "experiment": entry.experiment,
                "label": entry.label,
                "images": len(by_image),
                "seeds": len(by_seed),
                "difference": mean,
                "low": low,
                "high": high,
                "seeds_low": float(by_seed.min()),
                "seeds_high": float(by_seed.max()),
                "wins": float((by_image > 0).mean()),
                "noise": noise,
                "verdict": ("better" if mean > 0 else "worse") if sure else "cannot say",
            }
        )
    return pd.DataFrame(table)


def _above(
    rows: pd.DataFrame, entry: Comparison, images: pd.DataFrame, floor: pd.DataFrame, metric: str
) -> bool:
    """Whether all runs of a comparison are above the floor on average over its images."""
    keys = ["set", "image"]
    of_runs = images[keys].merge(rows[rows.run.isin([*entry.reference, *entry.other])], on=keys)
    least = floor[floor.upscale == of_runs.upscale.iloc[0]]
    return bool(
        (of_runs.groupby("run")[metric].mean() > images[keys].merge(least, on=keys)[metric].mean()).all()
    )
