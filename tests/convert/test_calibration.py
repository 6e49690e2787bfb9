"""calibrate: each stage learns what it says and nothing else, and a killed run goes on bit by bit."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taylorir.convert.calibration import Calibration, calibrate, converted_layers
from taylorir.convert.conversion import taylorize
from taylorir.datasets.sets import NamedImage
from taylorir.networks.checkpoint import latest_checkpoint
from taylorir.networks.variants import build_model
from taylorir.training.crops import PatchPool
from tests.killed import kill_and_go_on
from tests.pictures import noise

IMAGES = [NamedImage(str(seed), noise(40, 36, 3, seed=seed)) for seed in range(2)]
SETTINGS = Calibration(steps=(3, 3, 2), crop_size=16, batch_size=1, warmup_steps=1, log_every=1, eval_every=0,
                       checkpoint_every=2)  # fmt: skip


@functools.cache
def teacher() -> nn.Module:
    torch.manual_seed(0)
    return build_model("swinir_tiny_x2", embed_dim=4, num_heads=2, depths=(2,)).eval()


def calibrated(steps=None, converted=None, **changes):
    settings = (
        SETTINGS if steps is None else Calibration(steps=steps, crop_size=16, log_every=1, eval_every=0)
    )
    options = {"held_out": IMAGES[:1], "device": "cpu", "progress": False, **changes}
    return calibrate(converted or taylorize(teacher()), teacher(), IMAGES, settings, **options)


def difference(a: nn.Module, b: nn.Module) -> set[str]:
    others = dict(b.named_parameters())
    return {name for name, p in a.named_parameters() if not torch.equal(p, others[name])}


def test_the_layers_are_those_whose_attention_was_converted():
    names = [f"layers.0.residual_group.blocks.{i}.attn" for i in range(2)]
    assert converted_layers(taylorize(teacher()), teacher()) == names
    assert converted_layers(taylorize(teacher(), keep=names[:1]), teacher()) == names[1:]
    assert converted_layers(copy.deepcopy(teacher()), teacher()) == []


def test_a_layer_climbs_to_the_projections_around_a_site_without_any():
    class Site(nn.Linear):
        pass

    original = nn.Sequential(
        nn.ModuleDict({"qkv": nn.Linear(2, 2), "sites": nn.ModuleList([nn.Softmax(-1)])})
    )
    converted = copy.deepcopy(original)
    converted[0]["sites"][0] = nn.LayerNorm(2)  # its weights are a vector each
    assert converted_layers(converted, original) == ["0"]
    converted[0]["sites"][0] = Site(2, 2)
    assert converted_layers(converted, original) == ["0.sites.0"]


def test_attention_transfer_changes_the_converted_layers_alone_and_brings_them_nearer():
    converted = taylorize(teacher())
    before = copy.deepcopy(converted.state_dict())
    result = calibrated((30, 0, 0))
    changed = difference(result.model, converted)
    assert changed and all(".attn." in name for name in changed)
    assert {name.split(".attn.")[0][-1] for name in changed} == {"0", "1"}
    assert result.curve["loss"].iloc[-5:].mean() < 0.7 * result.curve["loss"].iloc[:5].mean()
    assert all(torch.equal(before[name], value) for name, value in converted.state_dict().items())


def test_the_loss_of_attention_transfer_is_the_relative_error_on_the_inputs_of_the_teacher():
    converted, seen = taylorize(teacher()), {}
    run = calibrated((1, 0, 0), converted)
    pool = PatchPool([image.image for image in IMAGES], ["0", "1"], upscale=2, crop_size=16)
    lr, _ = pool.crops(pool.draw(0, 1, 0))
    errors = []
    for name in converted_layers(converted, teacher()):
        layer = teacher().get_submodule(name)
        hook = layer.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
        with torch.no_grad():
            teacher()(lr)
            given = converted.get_submodule(name)(seen["x"])
        hook.remove()
        errors.append(((given - seen["y"]) ** 2).mean() / (seen["y"] ** 2).mean())
    assert run.curve["loss"].iloc[0] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_distillation_follows_the_teacher_and_ground_truth_the_images():
    perfect = calibrated((0, 2, 0), copy.deepcopy(teacher()))
    assert perfect.curve["loss"].iloc[0] < 1e-6  # a network that is its teacher has nothing to learn
    trained = calibrated((0, 0, 2), copy.deepcopy(teacher()))
    assert trained.curve["loss"].iloc[0] > 0.1  # the images are noise
    assert difference(trained.model, teacher())


def test_rates_rise_in_each_stage_and_fall_at_the_end():
    settings = Calibration(steps=(4, 6, 4), transfer_rate=1.0, learning_rate=10.0, warmup_steps=1, decay=0.5)
    assert [settings.rate(step) for step in range(14)] == [
        0.5, 1, 1, 1, 5, 10, 10, 10, 10, 10, 5, pytest.approx(6), 4, 2,
    ]  # fmt: skip
    assert [settings.stage(step) for step in (0, 4, 9, 10, 13)] == [
        ("transfer", 0), ("distill", 0), ("distill", 5), ("truth", 0), ("truth", 3),
    ]  # fmt: skip


def calibrate_in(folder: Path) -> None:
    calibrated(out=folder / "run", resume=True)


def test_a_run_killed_at_any_moment_ends_bit_by_bit_as_one_that_nobody_killed(tmp_path):
    folders = kill_and_go_on(calibrate_in, tmp_path, sampled=10)
    whole = latest_checkpoint(folders[0] / "run")
    assert whole.record["step"] == 8
    rows = curve_of(folders[0])
    for point, folder in folders.items():
        ended = latest_checkpoint(folder / "run")
        assert ended.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(ended.tensors[name], whole.tensors[name]) for name in whole.tensors), point
        assert np.array_equal(curve_of(folder), rows), point


def curve_of(folder: Path) -> np.ndarray:
    return np.genfromtxt(folder / "run" / "curve.csv", delimiter=",", skip_header=1)[:, :3]


def test_a_run_goes_on_in_slices_as_in_one_piece(tmp_path):
    for stop in (2, 3, 7, 8):
        sliced = calibrated(out=tmp_path / "run", resume=True, stop_at=stop)
        assert sliced.step == stop
    assert difference(sliced.model, calibrated().model) == set()


def test_what_cannot_be_is_said_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"steps\[0\] must be 0: no attention .* differs"):
        calibrated((1, 0, 0), copy.deepcopy(teacher()))
    with pytest.raises(ValueError, match="steps must be three numbers from 0 on"):
        Calibration(steps=(0, 0, 0))
    with pytest.raises(ValueError, match="crop_size must be at least 1"):
        Calibration(crop_size=0)
    with pytest.raises(ValueError, match="out is None"):
        calibrated(resume=True)
    calibrated((0, 1, 0), out=tmp_path)
    with pytest.raises(ValueError, match=r"of another run: steps was \[0, 1, 0\]"):
        calibrated((0, 2, 0), out=tmp_path, resume=True)
