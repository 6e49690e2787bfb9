"""The main pair by size and budget: which stages are reached, what was spent on them, which ones count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from taylorir.experiments.differences import with_rows
from taylorir.experiments.plan import Comparison
from taylorir.experiments.protocol import COMPARISONS, FLOOR
from taylorir.experiments.protocol_mid import BUDGETS, MID_COMPARISONS


@dataclass(frozen=True)
class Stage:
    """The main pair at one size and budget.

    Attributes:
        size: "mini" or "mid".
        steps: of the optimiser, before a decay.
        pair: SwinIR and TaylorSwinIR, a run a seed, as planned.
        floor: runs without a transformer, trained alike.
    """

    size: str
    steps: int
    pair: Comparison
    floor: tuple[str, ...]

    @property
    def name(self) -> str:
        """Size and budget in words."""
        return f"{self.size}, {self.steps:,} steps"


#: From the smallest to the largest.
STAGES: tuple[Stage, ...] = (
    Stage("mini", 3000, COMPARISONS[0], tuple(run for run in FLOOR if "_x2_" in run)),
    *(
        Stage("mid", budget, pair, pair.floor)
        for budget, pair in zip(BUDGETS, [e for e in MID_COMPARISONS if e.experiment == "main"], strict=True)
    ),
)


#: The stage whose networks chapters, their stored rows and the README show at x2. One of more steps takes
#: its place when its rows of degraded images, photographs and attribution are measured.
SHOWN: Stage = next(stage for stage in STAGES if (stage.size, stage.steps) == ("mid", BUDGETS[0]))


def shown_pair(upscale: int = 2) -> Comparison:
    """SwinIR and TaylorSwinIR, a run a seed, that chapters show at a factor.

    At x2 those of ``SHOWN``. At x3 and x4 the mini ones: no pair of larger ones is trained.

    Raises:
        ValueError: none are trained for the factor.
    """
    if upscale == 2:
        return SHOWN.pair
    for pair in COMPARISONS:
        if pair.experiment == "main" and f"_x{upscale}_" in pair.reference[0]:
            return pair
    raise ValueError(f"no pair of networks is trained for x{upscale}")


def stages_with_rows(rows: pd.DataFrame, size: str = "", *, least: int = 1) -> list[Stage]:
    """The stages at which so many pairs and some of the floor are measured, from the smallest to the largest.

    Args:
        rows: with a column run.
        size: only those of this size; "" for all.
        least: number of pairs.
    """
    measured = set(rows.run)
    return [
        stage
        for stage in STAGES
        if size in ("", stage.size)
        and len(with_rows(stage.pair, rows).reference) >= least
        and not measured.isdisjoint(stage.floor)
    ]


def decisive(rows: pd.DataFrame, size: str = "mid") -> Stage:
    """The stage that counts: of those with most pairs measured, the one of most steps.

    Raises:
        ValueError: none has a pair and a floor.
    """
    reached = stages_with_rows(rows, size)
    if not reached:
        raise ValueError(f"no pair of size {size!r} has been measured")
    return max(reached, key=lambda stage: (len(with_rows(stage.pair, rows).reference), stage.steps))


def spent(rows: pd.DataFrame, runs: pd.DataFrame, stages: Sequence[Stage]) -> pd.DataFrame:
    """What each stage cost and how far it has come.

    Args:
        rows: of images.
        runs: of runs: run, parameters, num_iters, decay_iters (NaN for none), batch_size, crop_size,
            branched_from, cpu_seconds, held_out_psnr_y.
        stages: some of ``STAGES``.

    Returns:
        A row a stage: size, steps, seeds and planned, and of the measured pairs parameters_swinir,
        parameters_taylorswinir, pixels (LR pixels that a training saw, those of its trunk included),
        minutes_swinir and minutes_taylorswinir (CPU minutes of the quickest of the trainings: the
        others ran with older kernels, or beside more).
    """
    table, by_run = [], runs.set_index("run")
    for stage in stages:
        pair = with_rows(stage.pair, rows)
        arms = {"swinir": by_run.loc[list(pair.reference)], "taylorswinir": by_run.loc[list(pair.other)]}
        row = {"size": stage.size, "steps": stage.steps, "seeds": len(pair.reference)}
        row |= {"planned": len(stage.pair.reference), "pixels": _pixels(by_run, pair.reference[0])}
        row |= {f"parameters_{arm}": int(some.parameters.iloc[0]) for arm, some in arms.items()}
        row |= {f"minutes_{arm}": some.cpu_seconds.min() / 60 for arm, some in arms.items()}
        table.append(row)
    return pd.DataFrame(table)


def _pixels(by_run: pd.DataFrame, name: str) -> int:
    """LR pixels that a run saw, and those of the runs that it was branched off from before it."""
    total = 0
    while name:
        run = by_run.loc[name]
        parent = run.get("branched_from")
        name = parent if isinstance(parent, str) else ""
        steps = int(run.num_iters) - (int(by_run.loc[name].num_iters) if name else 0)
        total += steps * int(run.batch_size) * int(run.crop_size) ** 2
    return total
