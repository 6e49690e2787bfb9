"""The protocol promises equal conditions for what is compared; the runner may be stopped and shared."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from taylorir.evaluation.scores import evaluate
from taylorir.experiments.protocol import EXPERIMENTS, TIERS, Run, find_run, runs_of
from taylorir.experiments.run import Places, run_tier
from taylorir.images.io import write_image
from taylorir.networks.checkpoint import load_checkpoint
from taylorir.networks.variants import build_model
from taylorir.rows.measured import PROVENANCE_COLUMNS
from taylorir.training.config import TrainConfig
from tests.killed import kill_and_go_on

ALL = [(tier, run) for tier in TIERS for run in runs_of(tier)]


@pytest.mark.parametrize("tier", list(TIERS))
def test_names_are_of_one_run_and_keys_of_an_experiment(tier):
    runs = runs_of(tier)
    assert len({run.name for run in runs}) == len(runs)
    assert {key for run in runs for key in run.experiments} <= set(EXPERIMENTS)


@pytest.mark.parametrize("tier", ["mini", "s", "paper"])
def test_what_is_compared_differs_in_the_network_and_the_seed_alone(tier):
    runs = runs_of(tier)
    for key in {key for run in runs for key in run.experiments}:
        compared = [run for run in runs if key in run.experiments]
        for scale in {run.config.model.upscale for run in compared}:
            group = [run.config for run in compared if run.config.model.upscale == scale]
            assert len(group) > 1
            assert len({dataclasses.replace(c, model=group[0].model, seed=0) for c in group}) == 1


def test_each_experiment_changes_what_it_says():
    fields = {"a": "attention position", "b": "patch_size window_size", "c": "window_size", "e": "position",
              "f": "num_heads", "g": "shift"}  # fmt: skip
    for key, names in fields.items():
        models = [run.config.model for run in runs_of("mini") if key in run.experiments]
        reference = {field.name: getattr(models[0], field.name) for field in dataclasses.fields(models[0])}
        for name in set(reference) - set(names.split()):
            assert {getattr(model, name) for model in models} == {reference[name]}, (key, name)
    tokens = {run.config.model.patch_size * run.config.model.window_size for run in runs_of("mini")
              if "b" in run.experiments}  # fmt: skip
    assert tokens == {48}


def test_main_rows_of_the_mini_tier_have_three_seeds_each():
    seeds = {}
    for run in runs_of("mini"):
        if "main" in run.experiments:
            model = run.config.model
            seeds.setdefault((model.upscale, model.attention), []).append(run.config.seed)
    assert seeds == {
        (scale, attention): [0, 1, 2] if scale == 2 else [0]
        for scale in (2, 3, 4)
        for attention in ("softmax", "taylor")
    }
    assert set(EXPERIMENTS) == {key for _, run in ALL for key in run.experiments}


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown tier 'x'; known: mini, mid, restoration, s, paper"):
        runs_of("x")
    with pytest.raises(ValueError, match="unknown run 'x' of tier 'paper'; known: swinir_m_x2"):
        find_run("paper", "x")


SOFTMAX = build_model("swinir_tiny_x2", embed_dim=4, num_heads=2, depths=(1,)).config
TAYLOR = dataclasses.replace(SOFTMAX, attention="taylor", position="none", window_size=16)
CONFIG = TrainConfig(model=SOFTMAX, datasets=("T91",), crop_size=16, batch_size=1, num_iters=4,
                     checkpoint_every=2, eval_every=2, log_every=2)  # fmt: skip
RUNS = (
    Run("child", ("h",), dataclasses.replace(CONFIG, model=TAYLOR), upcycled_from="parent"),
    Run("parent", ("main",), CONFIG, keep_weights=True),
)


def places_in(folder: Path, images: Path) -> Places:
    return Places(folder / "runs", folder / "results", folder / "weights", images)


def make_images(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for name, sizes in {"train/T91": ((40, 44), (36, 36)), "benchmarks/Set5": ((36, 30), (31, 40))}.items():
        (folder / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_image(folder / name / f"{i}.png", image)
    return folder


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setitem(TIERS, "mini", RUNS)
    return places_in(tmp_path, make_images(tmp_path / "images"))


def test_runs_are_done_once_and_their_cells_recomputed(places):
    options = {"sets": ["Set5"], "progress": False}
    assert run_tier("mini", places, **options) == ["child"]  # its parent came after it
    assert run_tier("mini", places, **options) == []
    rows = pd.read_csv(places.results / "quality_mini.csv")
    assert sorted(zip(rows.run, rows.set, rows.image.astype(str), strict=True)) == [
        (run, "Set5", image) for run in ("child", "parent") for image in "01"
    ]
    assert set(PROVENANCE_COLUMNS) <= set(rows.columns)
    again = evaluate(
        load_checkpoint(places.weights / "parent.safetensors"), "Set5", 2, data_root=places.data_root
    )
    assert np.allclose(again.psnr_y, rows[rows.run == "parent"].psnr_y, atol=1e-3)
    assert sorted(path.name for path in places.weights.iterdir()) == ["parent.json", "parent.safetensors"]
    before = {path: path.read_bytes() for path in places.results.iterdir()}
    assert run_tier("mini", places, **options) == []
    assert {path: path.read_bytes() for path in places.results.iterdir()} == before
    about = pd.read_csv(places.results / "quality_mini_runs.csv").set_index("run")
    assert about.loc["child", "upcycled_from"] == "parent" and about.loc["child", "attention"] == "taylor"
    assert list(about.num_iters) == [4, 4] and (about.cpu_seconds > 0).all()
    curves = pd.read_csv(places.results / "quality_mini_curves.csv")
    assert list(curves[curves.run == "child"].step) == [2, 4]


def test_a_run_that_another_process_works_on_is_left_alone(places):
    folder = places.runs / "mini"
    folder.mkdir(parents=True)
    with FileLock(folder / "parent.lock"):
        assert run_tier("mini", places, only=["parent"], sets=[], progress=False) == ["parent"]
    assert run_tier("mini", places, only=["parent"], sets=[], progress=False) == []


def test_a_run_paused_by_its_time_limit_goes_on(places, monkeypatch):
    run = dataclasses.replace(find_run("mini", "parent"), max_minutes=0.0)
    monkeypatch.setitem(TIERS, "mini", (run,))
    for _ in range(3):
        assert run_tier("mini", places, sets=[], progress=False) == ["parent"]
    assert run_tier("mini", places, sets=[], progress=False) == []


def experiment(folder: Path) -> None:
    TIERS["mini"] = RUNS[1:]
    places = places_in(folder, folder.parent / "images")
    assert run_tier("mini", places, sets=["Set5"], progress=False) == []


def test_killed_before_any_operation_on_files_an_experiment_goes_on_to_the_same_rows(tmp_path):
    def rows(folder: Path) -> list[pd.DataFrame]:
        clocks = [
            "seconds", "cpu_seconds", "iterations_per_second", "data_share", "utilisation", "date", "commit",
        ]  # fmt: skip
        files = (folder / "results" / f"quality_mini{part}.csv" for part in ("", "_runs", "_curves"))
        return [pd.read_csv(file).drop(columns=clocks, errors="ignore") for file in files]

    make_images(tmp_path / "images")
    folders = kill_and_go_on(experiment, tmp_path, sampled=6)
    whole = folders.pop(0)
    expected = load_file(whole / "weights" / "parent.safetensors")
    assert [len(table) for table in rows(whole)] == [2, 1, 2]
    for point, folder in folders.items():
        for table, other in zip(rows(folder), rows(whole), strict=True):
            assert table.equals(other), point
        weights = load_file(folder / "weights" / "parent.safetensors")
        assert all(torch.equal(weights[name], expected[name]) for name in expected), point
        assert (folder / "weights" / "parent.json").exists(), point


def test_rows_of_another_training_make_way(places):
    options = {"only": ["parent"], "sets": ["Set5"], "progress": False}
    run_tier("mini", places, **options)
    tables = {path.name: pd.read_csv(path) for path in places.results.iterdir()}
    stale = {"quality_mini.csv": {"psnr_y": 1.0}, "quality_mini_runs.csv": {"seconds": 1.0}}
    for name, change in stale.items():  # as committed by somebody who trained it elsewhere
        tables[name].assign(**change).to_csv(places.results / name, index=False)
    run_tier("mini", places, **options)
    for name, table in tables.items():
        assert pd.read_csv(places.results / name).equals(table), name


def test_weights_that_are_kept_need_no_training(places):
    """To be measured on a set, or to begin another run with."""
    run_tier("mini", places, only=["parent"], sets=[], progress=False)
    shutil.rmtree(places.runs)
    expected = evaluate(
        load_checkpoint(places.weights / "parent.safetensors"), "Set5", 2, data_root=places.data_root
    )
    assert run_tier("mini", places, only=["parent"], sets=["Set5"], progress=False) == []
    rows = pd.read_csv(places.results / "quality_mini.csv")
    assert np.allclose(rows.psnr_y, expected.psnr_y, atol=1e-3) and len(rows) == 2
    assert not (places.runs / "mini" / "parent").exists()
    assert run_tier("mini", places, only=["child"], sets=[], progress=False) == []
    assert not (places.runs / "mini" / "parent").exists()
