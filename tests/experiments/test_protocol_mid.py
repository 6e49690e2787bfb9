"""The mid tier: arms that differ in the network alone, trunks and the branches that tell their worth."""

from __future__ import annotations

import dataclasses

import pytest

from taylorir.experiments.protocol import EXPERIMENTS, find_run, runs_of
from taylorir.experiments.protocol_mid import (
    ARMS,
    BUDGETS,
    DECAY_CROPS,
    LEARNING_RATES,
    MID_COMPARISONS,
    RATES,
    SEEDS,
    mid_run,
)
from taylorir.experiments.protocol_parts import PART_COMPARISONS, PART_RUNS
from taylorir.training.config import check_branch

RUNS = runs_of("mid")


def main_config(arm: str, seed: int, budget: int):
    return find_run("mid", mid_run(arm, seed, budget)).config


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_arms_differ_in_the_network_its_rate_and_the_seed_alone(budget):
    configs = [main_config(arm, seed, budget) for arm in ARMS for seed in SEEDS]
    same = {"model": configs[0].model, "learning_rate": 1.0, "seed": 0}
    assert len({dataclasses.replace(config, **same) for config in configs}) == 1
    assert [config.learning_rate for config in configs] == [LEARNING_RATES[a] for a in ARMS for _ in SEEDS]
    assert {config.num_iters for config in configs} == {budget + budget // 10}
    assert {config.decay_iters for config in configs} == {budget // 10}
    assert [main_config(arm, seed, budget).seed for arm in ARMS for seed in SEEDS] == [*SEEDS] * len(ARMS)


def test_every_branch_may_be_taken_from_its_trunk_which_comes_first():
    seen = {}
    for run in RUNS:
        seen[run.name] = run.config
        if run.branched_from:
            source = seen[run.branched_from]
            check_branch(source, run.config, source.num_iters, run.branched_from)
            assert source.decay_iters == 0 and not find_run("mid", run.branched_from).measured


def test_rates_are_tried_for_both_kinds_before_the_main_runs_and_on_no_benchmark_set():
    tried = RUNS[: 2 * len(ARMS) * len(RATES)]
    assert {run.experiments for run in tried} == {("rates",)} and not any(run.measured for run in tried)
    pairs = {(run.config.learning_rate, run.config.model) for run in tried if run.branched_from}
    assert pairs == {(rate, model) for rate in RATES for model in ARMS.values()}


def test_parents_come_first_and_are_of_the_same_seed():
    seen = {}
    for run in RUNS:
        seen[run.name] = run.config
        if run.upcycled_from:
            assert seen[run.upcycled_from].seed == run.config.seed and not run.branched_from
    begun = [run for run in RUNS if run.upcycled_from]
    assert {run.experiments for run in begun} == {("swap",), ("scales",)}


def test_crops_of_a_decay_fit_into_the_images_of_bsds():
    assert all(side * scale <= 321 and side % 8 == 0 for scale, side in DECAY_CROPS.items())


@pytest.mark.parametrize("entry", [*MID_COMPARISONS, *PART_COMPARISONS], ids=lambda entry: entry.label)
def test_what_is_compared_shares_seed_budget_and_scale_and_has_its_floor(entry):
    sides = [
        [find_run("mid", name) for name in names] for names in (entry.reference, entry.other, entry.floor)
    ]
    for runs in zip(*sides, strict=True):
        assert len({(run.config.seed, run.config.num_iters, run.config.crop_size) for run in runs}) == 1
        assert len({run.config.model.upscale for run in runs}) == 1
        assert runs[2].config.model.depths == ()
    assert entry.experiment in EXPERIMENTS and len(entry.reference) > 1
    if entry.experiment != "attribution":  # whose window 48 is an arm of the main pair
        assert any(entry.experiment in run.experiments for side in sides[:2] for run in side)


def test_every_part_is_compared_with_something():
    compared = {name for entry in PART_COMPARISONS for name in (*entry.reference, *entry.other, *entry.floor)}
    measured = {run.name for run in PART_RUNS if run.measured}
    assert measured <= compared


def test_an_early_stop_leaves_pairs_of_seeds():
    order = [run.name for run in RUNS if run.keep_weights]
    assert order[:6] == [mid_run(arm, seed, 3000) for seed in (0, 1) for arm in ARMS]
    assert order[12] == mid_run("swinir", 0, 8000)
