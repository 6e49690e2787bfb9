"""What a plan of experiments is made of: runs, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass

from taylorir.training import TrainConfig

#: What super-resolution is measured on.
SETS = ("Set5", "Set14", "BSD100")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: of the run, its folder and its weights.
        experiments: keys of ``EXPERIMENTS`` whose comparison it takes part in.
        config: the whole run.
        upcycled_from: name of a run whose weights start this one, as ``run.begun_with`` says; "" for random
            ones.
        branched_from: name of a run to go on from, with its step, averages and optimiser, under the same
            settings but for length, decay and crop size; "" for none.
        measured: whether it is evaluated on the benchmark sets.
        sets: names of these.
        keep_weights: whether the weights go to ``data/weights``.
        max_minutes: a run pauses after this time, to be resumed; None means no limit.
    """

    name: str
    experiments: tuple[str, ...]
    config: TrainConfig
    upcycled_from: str = ""
    branched_from: str = ""
    measured: bool = True
    sets: tuple[str, ...] = SETS
    keep_weights: bool = False
    max_minutes: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What an experiment subtracts from what: ``other`` minus ``reference``, seed by seed.

    The number of seeds is fixed here, before the runs: with fewer rows than that there is no verdict.

    Attributes:
        experiment: a key of ``EXPERIMENTS``.
        label: of the difference.
        reference: names of runs, one a seed.
        other: as many.
        floor: names of runs without a transformer, trained as long at the same scale, which both must
            surpass to be judged; () leaves that to who compares.
    """

    experiment: str
    label: str
    reference: tuple[str, ...]
    other: tuple[str, ...]
    floor: tuple[str, ...] = ()
