"""One rule for every table that gives verdicts: what a paired difference over seeds and images shows.

A training is a draw from the trainings that could have been, an image one from the images. So seeds and
images are crossed random effects: a difference is its mean, plus something of the seed, of the image, and of
both.

The interval is Student's t around the mean over all, with the error ``sqrt(a^2 + b^2)``, where a is the
standard error of the seeds' means (over images) and b that of the images' means (over seeds), and with as
many degrees of freedom as the smaller of the two samples gives. Of a balanced table the variance that a mixed
model fits by REML is a^2 + b^2 less that of the residual mean, which both a and b hold: so ours errs on the
safe side, and is the t-interval over seeds of per-seed means where images hardly differ. That the smaller
number of degrees of freedom keeps the level for a sum of such variances is a theorem (Mickey and Brown, 1966,
for the Behrens-Fisher problem).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8

#: Fewer images than Set5 has give no verdict.
LEAST_IMAGES = 5
#: Why a comparison gets no verdict whose networks do not surpass one without a transformer.
BELOW_FLOOR = "below the floor: not judged"


class Estimate(NamedTuple):
    """A mean difference and what it is worth, in the unit of the differences.

    Attributes:
        difference: the mean over seeds and images.
        low: lower end of the 95 % interval over seeds and images; NaN for one seed or one image.
        high: its upper end.
        error: standard error of the mean; NaN likewise.
        freedom: degrees of freedom of the interval.
        p: of no difference, two-sided.
        detectable: the true difference that as many seeds and images would find in 80 % of cases.
    """

    difference: float
    low: float
    high: float
    error: float
    freedom: int
    p: float
    detectable: float


def estimate(differences: np.ndarray) -> Estimate:
    """What differences, paired in seeds and images, say about their mean.

    Args:
        differences: ``[..., images, seeds]``; with leading axes, so has each value of the estimate.

    Raises:
        ValueError: fewer than two axes, or an empty one.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.ndim < 2 or 0 in differences.shape:
        raise ValueError(f"differences must be [images, seeds], got {list(differences.shape)}")
    mean, freedom = differences.mean((-2, -1)), min(differences.shape[-2:]) - 1
    if not freedom:
        unknown = np.full_like(mean, np.nan)[()]
        return Estimate(mean, unknown, unknown, unknown, freedom, unknown, unknown)
    of_seeds, of_images = (stats.sem(differences.mean(axis), axis=-1) for axis in (-2, -1))
    error = np.hypot(of_seeds, of_images)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    p = p_against(mean, error, freedom)
    return Estimate(mean, mean - half, mean + half, error, freedom, p, error * _detectable(freedom))


def p_against(difference: float, error: float, freedom: int, value: float = 0.0) -> float:
    """Two-sided p of a true difference of ``value``; below 5 % exactly where the interval excludes it."""
    distance = np.abs(np.subtract(difference, value))
    beyond = np.where(distance > 0, np.inf, 0.0)  # with no error at all
    return 2 * stats.t.sf(np.divide(distance, error, out=beyond, where=np.not_equal(error, 0)), freedom)


@functools.lru_cache
def _detectable(freedom: int) -> float:
    """The detectable difference in standard errors of the mean."""
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=freedom + 1, alpha=1 - CONFIDENCE, power=POWER)
    return float(effect) * np.sqrt(freedom + 1)


def seeds_needed(differences: np.ndarray, value: float) -> int:
    """How many seeds would find a true difference of ``value`` in 80 % of cases, on these images.

    The spread is that of the seeds' means, so the answer is as rough as they are few.

    Args:
        differences: ``[images, seeds]``, at least two seeds.
        value: in the unit of the differences.
    """
    from statsmodels.stats.power import TTestPower

    effect = value / np.std(np.mean(differences, axis=0), ddof=1)
    return int(np.ceil(TTestPower().solve_power(effect_size=effect, alpha=1 - CONFIDENCE, power=POWER)))


def judge(table: pd.DataFrame, *, more: str = "better", less: str = "worse") -> pd.DataFrame:
    """The table with verdicts that hold together: of all its rows, one is wrong in at most 5 % of tables.

    Args:
        table: columns difference, p (of :func:`estimate`), images and seeds; and maybe planned, the seeds
            that were fixed beforehand (as many as there are, where it is missing), and barred, the reason why
            a row is not judged ("" where there is none).
        more, less: the verdict of a difference above and below zero.

    Returns:
        The table with the columns p_holm (Holm's correction over all rows that have a p) and verdict:
        ``more`` or ``less`` where p_holm is below 5 %, else "cannot say"; or why there is none.
    """
    from statsmodels.stats.multitest import multipletests

    table = table.assign(p_holm=np.nan)
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p"], method="holm")[1]
    verdicts = []
    for row in table.to_dict("records"):
        planned = row.get("planned", row["seeds"])
        if row.get("barred"):
            verdict = row["barred"]
        elif row["seeds"] < 2:
            verdict = "one seed: no verdict"
        elif row["seeds"] < planned:
            verdict = f"{row['seeds']} of {planned} seeds: no verdict"
        elif row["images"] < LEAST_IMAGES:
            verdict = f"{row['images']} images: no verdict"
        elif row["p_holm"] >= 1 - CONFIDENCE:
            verdict = "cannot say"
        else:
            verdict = more if row["difference"] > 0 else less
        verdicts.append(verdict)
    return table.assign(verdict=verdicts)


def exclusions(row: pd.Series, values: tuple[float, ...]) -> pd.DataFrame:
    """Which true differences a judged row excludes, corrected for how many are asked about.

    Args:
        row: of a table with difference, error and freedom.
        values: in the unit of the difference.

    Returns:
        Columns value, p (two-sided, Holm's correction over ``values``) and excluded (p below 5 %; never where
        the row has no error).
    """
    table = pd.DataFrame({"difference": values, "images": LEAST_IMAGES, "seeds": 2})
    table["p"] = [p_against(row["difference"], row["error"], row["freedom"], value) for value in values]
    p = judge(table)["p_holm"]
    return pd.DataFrame({"value": values, "p": p, "excluded": p < 1 - CONFIDENCE})


def interval_in_words(row: pd.Series) -> str:
    """The interval of a judged row in dB, or why there is none: "+0.010 to +0.030 dB"."""
    if np.isnan(row["low"]):
        return "no interval, there being one seed"
    return f"{row['low']:+.3f} to {row['high']:+.3f} dB"


def result_in_words(rows: pd.DataFrame, label: str) -> str:
    """A judged difference in dB with its interval and verdict, or that it was not measured.

    Args:
        rows: judged ones, as ``taylorir.experiments.compare`` gives them.
        label: of one of them, or of none.
    """
    found = rows[rows["label"] == label]
    if found.empty:
        return "not measured"
    row = found.iloc[0]
    return f"{row['difference']:+.3f} dB ({interval_in_words(row)}): {row['verdict']}"


def exclusions_in_words(row: pd.Series, values: tuple[float, ...]) -> list[str]:
    """Whether a judged row excludes each of some true differences (see :func:`exclusions`), in words, with p.

    A row with fewer seeds than were planned excludes nothing for good, and says so.
    """
    if np.isnan(row["low"]):
        return ["not excluded, there being one seed"] * len(values)
    far = f", as far as {int(row['seeds'])} seeds go" if row["seeds"] < row["planned"] else ""
    found = exclusions(row, values)
    return [
        f"{'excluded' if excluded else 'not excluded'} (p = {p:.2g}){far}"
        for excluded, p in zip(found["excluded"], found["p"], strict=True)
    ]


def detectable_in_words(row: pd.Series) -> str:
    """The difference that a judged row would find in 80 % of cases: "0.10 dB"."""
    return (
        f"{row['detectable']:.2f} dB"
        if not np.isnan(row["detectable"])
        else "a size that one seed cannot tell"
    )


def needed_in_words(differences: np.ndarray, value: float, hours: float) -> str:
    """What finding a true difference would take (see :func:`seeds_needed`), in words.

    Args:
        differences: ``[images, seeds]``.
        value: in the unit of the differences.
        hours: of one core, for a pair of trainings.
    """
    if differences.shape[1] < 2:
        return "one seed cannot tell"
    needed = seeds_needed(differences, value)
    return f"about {needed:,} pairs of such trainings, {needed * hours:,.0f} hours of one core"
