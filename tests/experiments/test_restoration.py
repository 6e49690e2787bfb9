"""Restoration rows: judged task by task over a floor of their own, and right while rows are missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taylorir.experiments.protocol_restoration import ARMS, SEEDS, TASKS, restoration_run
from taylorir.experiments.restoration import compare_restoration, input_rows, restoration_means, said
from taylorir.images.degradations import degrade
from taylorir.images.io import write_image
from tests.pictures import noise

LEVELS = {"linear": 30.0, "swinir": 31.0, "taylorswinir": 31.5}


def rows(task: str, seeds=SEEDS, levels=LEVELS) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "run": restoration_run(arm, task, seed),
            "set": "Set5",
            "image": f"image{image}",
            "upscale": 1,
            "psnr_y": levels[arm] + image + 0.01 * random.normal(),
            "ssim_y": 0.9,
        }
        for arm in ARMS
        for seed in seeds
        for image in range(5)
    )


def verdicts(table: pd.DataFrame, task: str) -> list[str]:
    return table[table["experiment"] == task]["verdict"].tolist()


def test_without_rows_nothing_is_said():
    table = compare_restoration(rows("denoise").iloc[:0])
    assert len(table) == 3 * len(TASKS) and set(table.verdict) == {"not measured"} and not table.seeds.any()
    assert said(table.iloc[0].to_dict()) == "not measured"


def test_one_seed_gives_no_verdict_and_a_task_without_rows_none():
    table = compare_restoration(rows("denoise", seeds=(0,)))
    assert verdicts(table, "denoise") == ["one seed: no verdict"] * 3
    assert verdicts(table, "jpeg") == ["not measured"] * 3
    assert table.difference[0] == pytest.approx(0.5, abs=0.05) and table.seeds[0] == 1
    assert said(table.iloc[0].to_dict()).endswith("dB over SwinIR (seeds: 1): one seed: no verdict")


def test_all_seeds_give_verdicts_over_the_floor_of_the_same_task():
    low = {"linear": 35.0, "swinir": 34.0, "taylorswinir": 34.5}
    table = compare_restoration(pd.concat([rows("denoise"), rows("jpeg", levels=low)]))
    assert verdicts(table, "denoise") == ["better"] * 3
    assert verdicts(table, "jpeg") == ["below the floor: not judged"] * 3
    assert "to" in said(table.iloc[0].to_dict())


def test_means_stand_beside_the_input_and_say_how_many_seeds():
    inputs = pd.DataFrame(
        {"task": task, "set": "Set5", "image": f"image{i}", "psnr_y": 20.0 + i}
        for task in TASKS
        for i in range(5)
    )
    table = restoration_means(rows("denoise", seeds=(0, 1)), inputs).set_index("task")
    assert table.input.tolist() == [22.0] * len(TASKS) and table.seeds.tolist() == [2, 0, 0]
    assert table.swinir["denoise"] == pytest.approx(33.0, abs=0.02) and np.isnan(table.swinir["jpeg"])


def test_inputs_are_measured_on_the_sets_of_their_task_and_grey_ones_on_grey_values(tmp_path):
    grey = noise(24, 32, 1)
    for name in {name for task in TASKS.values() for name in task.sets}:
        (tmp_path / "benchmarks" / name).mkdir(parents=True)
        write_image(tmp_path / "benchmarks" / name / "a.png", np.repeat(grey, 3, axis=2))
    table = input_rows(tmp_path)
    assert table.task.tolist() == [key for key, task in TASKS.items() for _ in task.sets]
    assert table.set.tolist() == [name for task in TASKS.values() for name in task.sets]
    error = (degrade(grey, 1, "noise25").astype(float) - grey) ** 2
    assert table.psnr_y.iloc[-1] == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=1e-4)
