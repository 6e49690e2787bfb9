"""The mid tier: arms that differ in the network alone, trunks and the branches that tell their worth."""

from __future__ import annotations

import dataclasses

import pytest

from taylorir.experiments.protocol import find_run, runs_of
from taylorir.experiments.protocol_mid import ARMS, BUDGETS, LEARNING_RATES, RATES, SEEDS, mid_run
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
    tried = RUNS[: 4 * len(RATES)]
    assert {run.experiments for run in tried} == {("rates",)} and not any(run.measured for run in tried)
    pairs = {(run.config.learning_rate, run.config.model.attention) for run in tried if run.branched_from}
    assert pairs == {(rate, attention) for rate in RATES for attention in ("softmax", "taylor")}


def test_an_early_stop_leaves_pairs_of_seeds():
    order = [run.name for run in RUNS if run.keep_weights]
    assert order[:6] == [mid_run(arm, seed, 3000) for seed in (0, 1) for arm in ARMS]
    assert order[12] == mid_run("swinir", 0, 8000)
