"""A run of constant rate may go on and on; what it is worth on the way is told by decayed branches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from taylorir.networks.checkpoint import latest_checkpoint
from taylorir.networks.variants import build_model
from taylorir.training.config import TrainConfig, learning_rate
from taylorir.training.loop import train
from tests.training.test_loop import assert_equal, images_of

MODEL = build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=2, depths=(2,), window_size=8).config
TRUNK = TrainConfig(
    model=MODEL, crop_size=8, batch_size=2, num_iters=8, learning_rate=1e-3, schedule="constant",
    warmup_iters=2, log_every=2, checkpoint_every=4, eval_every=0,
)  # fmt: skip
DECAYED = dataclasses.replace(TRUNK, num_iters=12, decay_iters=4)
IMAGES = images_of((33, 40), (24, 21), (20, 50))  # only the first has room for crops of 16 at x2


def run(config: TrainConfig, **options):
    return train(config, **{"images": IMAGES, "held_out": IMAGES[:1], "progress": False, **options})


def test_the_rate_rises_stays_and_falls_by_hand():
    config = dataclasses.replace(DECAYED, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(12)]
    assert rates == [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    ends_at = dataclasses.replace(config, final_rate=0.2)
    assert learning_rate(ends_at, 10) == pytest.approx(0.2 + 0.8 / 2)
    assert [learning_rate(dataclasses.replace(TRUNK, learning_rate=1.0), s) for s in (2, 7)] == [1, 1]
    for wrong in ({"schedule": "cosine"}, {"decay_iters": 13}):
        with pytest.raises(ValueError, match="decay_iters must be 0, or with schedule 'constant' at most"):
            dataclasses.replace(DECAYED, **wrong)


def test_a_branch_is_the_run_that_had_decayed_there_bit_by_bit(tmp_path):
    whole = run(DECAYED, out=tmp_path / "whole")
    run(TRUNK, out=tmp_path / "trunk")
    branch = run(DECAYED, out=tmp_path / "branch", branch_from=tmp_path / "trunk")
    assert_equal(load_file(branch.weights), load_file(whole.weights))
    assert list(branch.curve.step) == [10, 12] and branch.step == 12
    longer = dataclasses.replace(TRUNK, num_iters=10)  # the trunk itself goes on, and is as it was
    trunk_on = run(longer, out=tmp_path / "trunk_on", branch_from=tmp_path / "trunk")
    assert_equal(load_file(trunk_on.weights), load_file(run(longer, out=tmp_path / "ten").weights))
    assert latest_checkpoint(tmp_path / "trunk").record["step"] == 8


def test_a_branch_stopped_and_resumed_is_the_same_on_larger_crops(tmp_path):
    run(TRUNK, out=tmp_path / "trunk")
    config = dataclasses.replace(DECAYED, crop_size=16)
    whole = run(config, out=tmp_path / "whole", branch_from=tmp_path / "trunk")
    part = run(config, out=tmp_path / "part", branch_from=tmp_path / "trunk", max_minutes=0)
    assert part.step == 9
    while part.step < 12:
        options = {"branch_from": tmp_path / "trunk", "resume": True, "max_minutes": 0}
        part = run(config, out=tmp_path / "part", **options)
    assert_equal(load_file(part.weights), load_file(whole.weights))
    assert not torch.equal(
        load_file(whole.weights)["conv_first.weight"],
        load_file(tmp_path / "trunk" / "weights.safetensors")["conv_first.weight"],
    )


def test_a_branch_refuses_what_would_not_be_the_same_run(tmp_path):
    run(TRUNK, out=tmp_path / "trunk")
    from_trunk = {"branch_from": tmp_path / "trunk"}
    with pytest.raises(ValueError, match=r"of another run: learning_rate was 0.001, now it is 0.002"):
        run(dataclasses.replace(DECAYED, learning_rate=2e-3), **from_trunk)
    with pytest.raises(ValueError, match=r"at step 8: the rate of step 8 was 0.001, now it is 0.000833333;"):
        run(dataclasses.replace(DECAYED, decay_iters=6), **from_trunk)
    with pytest.raises(ValueError, match="was trained on other images"):
        run(DECAYED, images=IMAGES[:2], **from_trunk)
    with pytest.raises(ValueError, match="is of step 8 of 6"):
        run(dataclasses.replace(TRUNK, num_iters=6), **from_trunk)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        run(DECAYED, branch_from=tmp_path / "nothing")
