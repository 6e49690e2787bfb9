"""The restoration tier: arms that differ in the network alone, and a floor of the same task."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from taylorir.experiments.protocol import find_run, runs_of
from taylorir.experiments.protocol_restoration import ARMS, RESTORATION_COMPARISONS, SEEDS, TASKS
from taylorir.networks.variants import build_from_config

RUNS = runs_of("restoration")


@pytest.mark.parametrize("task", TASKS)
def test_the_arms_of_a_task_differ_in_the_network_and_the_seed_alone(task):
    configs = [run.config for run in RUNS if run.experiments == (task,)]
    assert [config.seed for config in configs] == [seed for seed in SEEDS for _ in ARMS]
    same = {dataclasses.replace(config, model=configs[0].model, seed=0) for config in configs}
    assert [config.degradation for config in same] == [TASKS[task].degradation]
    fields = ("attention", "position", "window_size", "depths", "num_heads")
    blank = {name: getattr(configs[0].model, name) for name in fields}
    assert len({dataclasses.replace(config.model, **blank) for config in configs}) == 1


def test_the_floor_is_a_linear_filter():
    for run in RUNS:
        if run.name.startswith("linear"):
            model = build_from_config(run.config.model).double()
            a, b = torch.rand(2, 1, model.config.in_chans, 9, 14, dtype=torch.float64)
            with torch.no_grad():
                torch.testing.assert_close(model((a + 3 * b) / 4), (model(a) + 3 * model(b)) / 4)


def test_a_comparison_pairs_the_seeds_of_one_task():
    for comparison in RESTORATION_COMPARISONS:
        for names in (comparison.reference, comparison.other):
            runs = [find_run("restoration", name) for name in names]
            assert [run.config.seed for run in runs] == [*SEEDS]
            assert {run.experiments for run in runs} == {(comparison.experiment,)}
