"""The trainer: its data, its arithmetic against a plain loop, and its ends: killed, stopped, diverged."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from taylorir.cli.main import main
from taylorir.datasets.sets import NamedImage
from taylorir.evaluation.super_resolution import dihedral
from taylorir.experiments.protocol import find_run
from taylorir.images.io import write_image
from taylorir.images.resize import imresize
from taylorir.networks import checkpoint as checkpoints
from taylorir.networks.variants import build_from_config, build_model
from taylorir.training.config import (
    TrainConfig,
    ema_decay,
    learning_rate,
    train_config_from_dict,
    train_config_to_dict,
)
from taylorir.training.crops import HeldOut, PatchPool, load_training_images
from taylorir.training.loop import train
from taylorir.training.run_control import Processes, exactness
from tests.killed import FORKS

SMALL = build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=2, depths=(2,), window_size=8).config
CONFIG = TrainConfig(
    model=SMALL, crop_size=8, batch_size=2, num_iters=12, learning_rate=1e-3, log_every=3, checkpoint_every=4,
    eval_every=6,
)  # fmt: skip
CPU = torch.device("cpu")


def images_of(*sizes: tuple[int, int]) -> list[NamedImage]:
    random = np.random.default_rng(0)
    return [
        NamedImage(f"image{i}", random.integers(0, 256, (*size, 3), dtype=np.uint8))
        for i, size in enumerate(sizes)
    ]


IMAGES = images_of((33, 40), (24, 21), (20, 50))


def run(config: TrainConfig = CONFIG, **options):
    return train(config, **{"images": IMAGES, "held_out": IMAGES[:1], "progress": False, **options})


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        assert torch.equal(got[name], expected[name]), name


# --------------------------------------------------------------------------------------------------- data


def pool_of(images: list[NamedImage], upscale: int, crop_size: int) -> PatchPool:
    return PatchPool(
        [i.image for i in images], [i.name for i in images], upscale=upscale, crop_size=crop_size
    )


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_crops_are_turned_windows_of_the_evaluated_pairs(upscale):
    side = 4
    pool = pool_of(IMAGES, upscale, side)
    places = np.array([[i, 0 if i else 2, 1, symmetry] for i in range(3) for symmetry in range(8)])
    lr, hr = pool.crops(places)
    for row, (index, top, left, symmetry) in enumerate(places):
        image = IMAGES[index].image
        image = image[: image.shape[0] // upscale * upscale, : image.shape[1] // upscale * upscale]
        for crop, whole, scale in ((lr[row], imresize(image, 1 / upscale), 1), (hr[row], image, upscale)):
            part = whole[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
            expected = dihedral(torch.from_numpy(part.copy()).permute(2, 0, 1), int(symmetry)).float() / 255
            assert torch.equal(crop, expected)


def test_draws_depend_on_seed_and_step_alone_and_reach_everything():
    pool = pool_of(images_of((11, 13), (12, 10)), 2, 5)
    assert np.array_equal(pool.draw(7, 4, 1), pool.draw(7, 4, 1))
    assert not np.array_equal(pool.draw(7, 4, 1), pool.draw(8, 4, 1))
    assert not np.array_equal(pool.draw(7, 4, 1), pool.draw(7, 4, 2))
    seen = {tuple(place) for step in range(200) for place in pool.draw(step, 4, 0)}
    # LR 5x6 has corners (0, 0..1), LR 6x5 has (0..1, 0); eight symmetries each
    assert seen == {(0, 0, left, s) for left in (0, 1) for s in range(8)} | {
        (1, top, 0, s) for top in (0, 1) for s in range(8)
    }


def test_images_below_the_crop_are_left_out_and_counted():
    pool = pool_of(IMAGES, 2, 11)
    assert (pool.num_images, pool.num_left_out) == (1, 2)
    with pytest.raises(
        ValueError, match=r"every training image is smaller .* needs 36x36 pixels, .* has 40x33"
    ):
        pool_of(IMAGES, 2, 18)
    with pytest.raises(ValueError, match="no training image"):
        pool_of([], 2, 4)
    with pytest.raises(ValueError, match="no held-out image"):
        HeldOut([], 2)


def test_the_sample_images_are_split_without_overlap():
    training = {image.name for image in load_training_images(["samples"])}
    assert training == {"motorcycle", "rocket", "china", "flower"}


# --------------------------------------------------------------------------------------------- arithmetic


def test_learning_rate_by_hand():
    steps = TrainConfig(num_iters=100, learning_rate=1.0, warmup_iters=4)
    assert [learning_rate(steps, s) for s in (0, 3, 4, 49, 50, 80, 90, 95)] == [
        0.25, 1, 1, 1, 0.5, 0.25, 0.125, 0.0625,
    ]  # fmt: skip
    cosine = dataclasses.replace(steps, schedule="cosine", warmup_iters=0, final_rate=0.2)
    assert learning_rate(cosine, 0) == 1
    assert math.isclose(learning_rate(cosine, 50), 0.6)
    assert math.isclose(learning_rate(cosine, 25), 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert [ema_decay(steps, s) for s in (0, 8, 10**6)] == [0.1, 0.5, 0.999]


@pytest.mark.parametrize("clip", [0.0, 1e-3], ids=["free", "clipped"])
def test_training_equals_a_plain_loop(clip):
    config = dataclasses.replace(CONFIG, num_iters=5, clip_grad_norm=clip)
    torch.manual_seed(config.seed)
    model = build_from_config(config.model)
    torch.manual_seed(config.seed)  # stochastic depth
    averaged = {name: p.double() for name, p in weights_of(model).items()}
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in model.named_parameters()}
    pool = pool_of(IMAGES, 2, config.crop_size)
    for step in range(config.num_iters):
        lr, hr = pool.crops(pool.draw(step, config.batch_size, config.seed))
        model.zero_grad()
        (model(lr) - hr).abs().mean().backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        rate = learning_rate(config, step)
        with torch.no_grad():
            for name, p in model.named_parameters():
                g = p.grad * min(1, clip / (norm + 1e-6)) if clip else p.grad
                first, second = moments[name]
                first.mul_(0.9).add_(g, alpha=0.1)
                second.mul_(0.999).addcmul_(g, g, value=0.001)
                first_hat, second_hat = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
                p -= rate * first_hat / (second_hat.sqrt() + 1e-8)
                decay = min(config.ema_decay, (1 + step) / (10 + step))
                averaged[name] = decay * averaged[name] + (1 - decay) * p.double()
    for name, value in weights_of(run(config).model).items():
        assert torch.allclose(value.double(), averaged[name], atol=2e-5), name


def test_gradient_checkpointing_changes_no_weight():
    plain = run().model
    saved = run(dataclasses.replace(CONFIG, model=dataclasses.replace(SMALL, use_checkpoint=True))).model
    for name, value in weights_of(saved).items():
        assert torch.allclose(value, weights_of(plain)[name], atol=1e-6), name


def test_bfloat16_stays_near_float32_and_float16_is_refused():
    low = run(dataclasses.replace(CONFIG, dtype="bfloat16")).curve
    assert np.allclose(low.loss, run().curve.loss, rtol=0.02) and not np.array_equal(
        low.loss, run().curve.loss
    )
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, got 'float16'"):
        TrainConfig(dtype="float16")


def test_the_curve_falls_and_says_what_was_measured():
    result = run(dataclasses.replace(CONFIG, num_iters=40, log_every=10, eval_every=20, checkpoint_every=40))
    assert list(result.curve.step) == [10, 20, 30, 40]
    assert list(result.curve.psnr_y.notna()) == [False, True, False, True]
    assert result.curve.loss.iloc[-1] < 0.95 * result.curve.loss.iloc[0]
    expected = HeldOut(IMAGES[:1], 2).psnr(result.model, CPU)
    assert result.curve.psnr_y.iloc[-1] == expected
    assert result.curve.seconds.is_monotonic_increasing and result.curve.data_share.between(0, 1).all()


def test_the_deterministic_switch_is_put_back():
    with exactness(True, False, CPU):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_configuration_survives_json_and_refuses_mistakes():
    values = json.loads(json.dumps(train_config_to_dict(CONFIG)))
    assert train_config_from_dict(values) == CONFIG
    with pytest.raises(ValueError, match="unknown training setting 'lr'; allowed: model, datasets"):
        train_config_from_dict({**values, "lr": 1})
    mistakes = {"batch_size": 0, "schedule": "step", "seed": -1, "learning_rate": 0.0, "betas": (1, 0)}
    for name, value in {**mistakes, "milestones": (0,), "datasets": (), "ema_decay": 1.0}.items():
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(CONFIG, **{name: value})


def test_init_gives_the_starting_weights():
    start = run().model
    begun = run(dataclasses.replace(CONFIG, num_iters=1, learning_rate=1e-12), init=start)
    for name, value in weights_of(begun.model).items():
        assert torch.allclose(value, weights_of(start)[name], atol=1e-9), name
    with pytest.raises(ValueError, match="init is of another architecture"):
        run(init=build_model("taylorswinir_tiny_x2"))


# ------------------------------------------------------------------------------- stopping and going on


def test_a_run_stopped_by_time_goes_on_to_the_same_bits(tmp_path):
    whole = run(out=tmp_path / "whole")
    part = run(out=tmp_path / "part", max_minutes=0)
    assert part.step == 1 and part.weights is None
    while part.step < CONFIG.num_iters:
        part = run(out=tmp_path / "part", max_minutes=0.0005, resume=True)
    assert_equal(load_file(part.weights), load_file(whole.weights))
    assert_equal(weights_of(whole.model), load_file(whole.weights))
    again = run(out=tmp_path / "part", resume=True)  # nothing is left to do
    assert_equal(weights_of(again.model), weights_of(whole.model))


LONG = dataclasses.replace(CONFIG, num_iters=200, eval_every=100)


def go_on(folder: Path) -> None:
    torch.set_num_threads(1)
    run(LONG, out=folder, resume=True)


def newest_step(folder: Path) -> int:
    return max((int(path.stem[5:]) for path in folder.glob("step_*.json")), default=0)


def test_a_run_killed_ten_times_goes_on_to_the_same_bits(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = run(LONG)
    finally:
        torch.set_num_threads(threads)
    random = np.random.default_rng()
    for number in range(11):
        moment, end = 15 * number + random.integers(15), "terminate" if number == 5 else "kill"
        if end == "terminate":  # SIGTERM is heard once the run has begun: it must have saved something itself
            moment = max(moment, newest_step(tmp_path) + 1)
        process = FORKS.Process(target=go_on, args=(tmp_path,))
        process.start()
        while newest_step(tmp_path) < moment and process.is_alive():
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        getattr(process, end)()
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if end == "kill" else 143)
        if newest_step(tmp_path):
            checkpoints.latest_checkpoint(tmp_path)
    process = FORKS.Process(target=go_on, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert_equal(load_file(tmp_path / "weights.safetensors"), weights_of(whole.model))


def test_ctrl_c_saves_first(tmp_path, monkeypatch):
    draw, calls, handler = PatchPool.draw, [], signal.getsignal(signal.SIGINT)

    def press(self, *arguments):
        calls.append(arguments)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, *arguments)

    monkeypatch.setattr(PatchPool, "draw", press)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path)
    assert checkpoints.latest_checkpoint(tmp_path).record["step"] == 5
    assert signal.getsignal(signal.SIGINT) is handler


def test_two_processes_equal_one(tmp_path):
    config = dataclasses.replace(CONFIG, num_iters=20, batch_size=4)
    config = dataclasses.replace(config, model=dataclasses.replace(SMALL, drop_path_rate=0.0))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, json; sys.path.insert(0, sys.argv[1]); from tests.training.test_loop import run\n"
        "from taylorir.training.config import train_config_from_dict\n"
        "run(train_config_from_dict(json.loads(sys.argv[3])), out=sys.argv[2])\n"
    )
    # the rendezvous address is given: looking up this machine's name may fail or take long
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2",
         "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", str(script),
         str(Path(__file__).parents[2]), str(tmp_path / "two"), json.dumps(train_config_to_dict(config))],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = weights_of(run(config).model), load_file(tmp_path / "two" / "weights.safetensors")
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    rows = pd.read_csv(tmp_path / "two" / "curve.csv")  # of the first process alone
    assert list(rows.step) == [3, 4, 6, 8, 9, 12, 15, 16, 18, 20]


def test_a_batch_must_divide_among_the_processes():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 2"):
        from taylorir.training.loop import _Run

        _Run(CONFIG, Processes(0, 3, CPU), IMAGES, IMAGES, None, None)


# ------------------------------------------------------------------------------------------------- failures


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    run(dataclasses.replace(CONFIG, num_iters=12), out=tmp_path, max_minutes=0)

    def full(descriptor):  # but for a few lines, as of a curve
        if os.fstat(descriptor).st_size > 5_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"step_00000004.safetensors: No space left .* checkpoint of step 1 is good"
    ):
        run(out=tmp_path, resume=True)
    monkeypatch.undo()
    assert checkpoints.latest_checkpoint(tmp_path).record["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir() if not p.is_dir()) == [
        ".lock", "curve.csv", "step_00000001.json", "step_00000001.safetensors",
    ]  # fmt: skip
    assert_equal(load_file(run(out=tmp_path, resume=True).weights), weights_of(run().model))


def test_divergence_is_one_line_and_never_saved(tmp_path):
    run(out=tmp_path, max_minutes=0)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("step_*")}
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+.*; nothing was saved") as error:
        run(dataclasses.replace(CONFIG, learning_rate=1e30), out=tmp_path / "wild")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "wild").glob("step_*"))
    assert {p.name: p.read_bytes() for p in tmp_path.glob("step_*")} == before


def test_a_run_refuses_checkpoints_of_another(tmp_path):
    run(out=tmp_path, max_minutes=0)
    with pytest.raises(ValueError, match="holds a run already: go on with --resume"):
        run(out=tmp_path)
    with pytest.raises(ValueError, match=r"of another run: batch_size was 2, now it is 4"):
        run(dataclasses.replace(CONFIG, batch_size=4), out=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"of another run: model.window_size was 8, now it is 4"):
        run(
            dataclasses.replace(CONFIG, model=dataclasses.replace(SMALL, window_size=4)),
            out=tmp_path,
            resume=True,
        )
    with pytest.raises(ValueError, match="was trained on other images"):
        run(images=images_of((40, 40)), out=tmp_path, resume=True)
    assert run(dataclasses.replace(CONFIG, log_every=5), out=tmp_path, resume=True).step == 12


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["train", *arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(lines) == 1 and lines[0].startswith("taylorir: error: ")
    return lines[0]


def test_misuse_of_the_command_is_one_line(tmp_path, capsys):
    tiny = ("taylorswinir_tiny_x2", "--num-iters", "1", "--quiet")
    assert "swinir" in refusal(capsys, "swinir_tiny_x9", "--out", str(tmp_path / "a"))
    (tmp_path / "file").write_text("")
    assert "file" in refusal(capsys, *tiny, "--out", str(tmp_path / "file"))
    assert "file/run" in refusal(capsys, *tiny, "--out", str(tmp_path / "file" / "run"))
    (tmp_path / "root" / "train" / "T91").mkdir(parents=True)
    data = ("--dataset", "T91", "--data-root", str(tmp_path / "root"))
    assert "no images of dataset 'T91'" in refusal(capsys, *tiny, *data, "--out", str(tmp_path / "b"))
    write_image(tmp_path / "root" / "train" / "T91" / "small.png", IMAGES[0].image)
    assert "is smaller than the crop" in refusal(capsys, *tiny, *data, "--out", str(tmp_path / "b"))
    assert "cuda_graphs needs" in refusal(
        capsys, *tiny, "--set", "cuda_graphs=True", "--out", str(tmp_path / "b")
    )
    run(out=tmp_path / "run")
    assert "of another run" in refusal(capsys, *tiny, "--resume", "--out", str(tmp_path / "run"))


def test_the_papers_recipe_runs_its_first_100_iterations():
    published = find_run("paper", "taylorswinir_m_x2").config
    model = dataclasses.replace(published.model, embed_dim=12, depths=(2,), num_heads=(2,), window_size=8)
    short = dataclasses.replace(published, model=model, crop_size=8, batch_size=2)
    assert [learning_rate(published, s) for s in (0, 250_000, 400_000, 450_000, 475_000)] == [
        2e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5,
    ]  # fmt: skip
    first = dataclasses.replace(short, num_iters=100, log_every=50, milestones=(1.0,))
    curve = run(first).curve
    assert curve.step.iloc[-1] == 100 and curve.loss.iloc[-1] < curve.loss.iloc[0]
