"""The controls of the protocol: a network simply trained on, and one without a transformer, alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from taylorir.datasets.sets import NamedImage
from taylorir.experiments import run as experiments_run
from taylorir.experiments.protocol import FLOOR, Run, find_run
from taylorir.experiments.run import Places, begun_with, run_tier
from taylorir.networks.checkpoint import load_checkpoint
from taylorir.networks.variants import build_model
from taylorir.training.config import TrainConfig

SOFTMAX = build_model("swinir_tiny_x2", embed_dim=4, num_heads=2, depths=(1,)).config
CONFIG = TrainConfig(
    model=SOFTMAX, datasets=("T91",), crop_size=16, batch_size=1, num_iters=1, learning_rate=1e-9
)
TAYLOR = dataclasses.replace(SOFTMAX, attention="taylor", position="none")
LINEAR = dataclasses.replace(SOFTMAX, depths=(), num_heads=())
RUNS = (
    Run("parent", ("h",), CONFIG),
    Run("trained_on", ("h",), CONFIG, upcycled_from="parent"),
    Run("upcycled", ("h",), dataclasses.replace(CONFIG, model=TAYLOR), upcycled_from="parent"),
    Run(
        "linear",
        ("floor",),
        dataclasses.replace(CONFIG, model=LINEAR),
    ),
)


def test_the_control_starts_from_its_parent_and_the_floor_has_no_blocks(tmp_path, monkeypatch):
    pictures = [NamedImage("a", np.random.default_rng(0).integers(0, 256, (40, 44, 3), dtype=np.uint8))]
    monkeypatch.setattr(experiments_run, "load_training_images", lambda *_: pictures)
    monkeypatch.setattr("taylorir.experiments.protocol.TIERS", {"mini": RUNS})
    places = Places(tmp_path / "runs", tmp_path / "results", tmp_path / "weights")
    assert run_tier("mini", places, sets=[], progress=False) == []
    networks = {
        run.name: load_checkpoint(places.runs / "mini" / run.name / "weights.safetensors") for run in RUNS
    }
    assert networks["trained_on"].config == networks["parent"].config
    weights = {name: dict(network.named_parameters()) for name, network in networks.items()}
    for name in ("trained_on", "upcycled"):  # one step of next to nothing: they are their parent still
        for key in weights[name].keys() & weights["parent"].keys():
            torch.testing.assert_close(weights[name][key], weights["parent"][key], rtol=0, atol=1e-6)
    assert {key.split(".")[0] for key in weights["linear"]} == {"conv_first", "conv_after_body", "upsample"}
    assert (
        "num_heads" in (rows := (places.results / "quality_mini_runs.csv").read_text()) and "linear" in rows
    )


def test_a_run_begins_with_all_that_it_shares_with_its_parent_and_the_rest_is_of_its_seed():
    parent = build_model("swinir_tiny_x2", embed_dim=4, num_heads=2, depths=(1,))
    turned = begun_with(parent, dataclasses.replace(CONFIG, model=TAYLOR))
    assert turned.config == TAYLOR
    back = begun_with(turned, dataclasses.replace(CONFIG, seed=3))
    x3 = begun_with(
        parent, dataclasses.replace(CONFIG, model=dataclasses.replace(SOFTMAX, upscale=3), seed=3)
    )
    weights = {
        name: dict(m.named_parameters()) for name, m in (("parent", parent), ("back", back), ("x3", x3))
    }
    assert begun_with(parent, CONFIG) is parent and weights["back"].keys() == weights["parent"].keys()
    fresh = {"back": "relative_position_bias_table", "x3": "upsample."}
    for name, part in fresh.items():
        for key, weight in weights["parent"].items():
            same = weights[name][key].shape == weight.shape and torch.equal(weights[name][key], weight)
            assert same is (part not in key), (name, key)
    again = dict(begun_with(turned, dataclasses.replace(CONFIG, seed=3)).named_parameters())
    assert all(torch.equal(again[key], weight) for key, weight in weights["back"].items())


@pytest.mark.parametrize("name", FLOOR)
def test_the_floor_is_trained_as_the_network_that_stands_on_it(name):
    floor, main = find_run("mini", name), find_run("mini", name.replace("linear", "swinir"))
    model = dataclasses.replace(floor.config.model, depths=(2, 2), num_heads=(6, 6))
    assert dataclasses.replace(floor.config, model=model) == main.config
