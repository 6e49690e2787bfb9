"""The protocol promises equal conditions for what is compared; the runner may be stopped and shared."""

from __future__ import annotations

import dataclasses
import fcntl

import numpy as np
import pandas as pd
import pytest

from taylorir.evaluation.scores import evaluate
from taylorir.experiments.protocol import EXPERIMENTS, TIERS, Run, find_run, runs_of
from taylorir.experiments.run import Places, run_tier
from taylorir.images.io import write_image
from taylorir.networks.checkpoint import load_checkpoint
from taylorir.networks.variants import build_model
from taylorir.rows.measured import PROVENANCE_COLUMNS
from taylorir.training.config import TrainConfig

ALL = [(tier, run) for tier in TIERS for run in runs_of(tier)]


@pytest.mark.parametrize("tier", list(TIERS))
def test_what_is_compared_differs_in_the_network_and_the_seed_alone(tier):
    runs = runs_of(tier)
    assert len({run.name for run in runs}) == len(runs)
    for key in {key for run in runs for key in run.experiments}:
        assert key in EXPERIMENTS
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
    assert all(key in {k for run in runs_of("mini") for k in run.experiments} for key in EXPERIMENTS)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown tier 'x'; known: mini, s, paper"):
        runs_of("x")
    with pytest.raises(ValueError, match="unknown run 'x' of tier 'paper'; known: swinir_m_x2"):
        find_run("paper", "x")


@pytest.fixture
def places(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for folder, sizes in {"train/T91": ((40, 44), (36, 36)), "benchmarks/Set5": ((36, 30), (31, 40))}.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for i, size in enumerate(sizes):
            image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_image(tmp_path / "data" / folder / f"{i}.png", image)
    softmax = build_model("swinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,)).config
    taylor = dataclasses.replace(softmax, attention="taylor", position="none", window_size=16)
    config = TrainConfig(model=softmax, datasets=("T91",), crop_size=16, batch_size=1, num_iters=4,
                         checkpoint_every=2, eval_every=2, log_every=2)  # fmt: skip
    runs = (
        Run("child", ("h",), dataclasses.replace(config, model=taylor), upcycled_from="parent"),
        Run("parent", ("main",), config, keep_weights=True),
    )
    monkeypatch.setitem(TIERS, "mini", runs)
    return Places(tmp_path / "runs", tmp_path / "results", tmp_path / "weights", tmp_path / "data")


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
    with (folder / "parent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_tier("mini", places, only=["parent"], sets=[], progress=False) == ["parent"]
    assert run_tier("mini", places, only=["parent"], sets=[], progress=False) == []


def test_a_run_paused_by_its_time_limit_goes_on(places, monkeypatch):
    run = dataclasses.replace(find_run("mini", "parent"), max_minutes=0.0)
    monkeypatch.setitem(TIERS, "mini", (run,))
    for _ in range(3):
        assert run_tier("mini", places, sets=[], progress=False) == ["parent"]
    assert run_tier("mini", places, sets=[], progress=False) == []
