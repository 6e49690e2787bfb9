"""The folder of a run: whole after a kill before any operation on files, held by one training, never lost."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from taylorir.datasets.sets import NamedImage
from taylorir.networks.checkpoint import latest_checkpoint, read_record, save_checkpoint
from taylorir.networks.variants import build_model
from taylorir.training.config import TrainConfig
from taylorir.training.loop import train
from tests.killed import FORKS, kill_and_go_on

SMALL = build_model("taylorswinir_tiny_x2", embed_dim=4, num_heads=1, depths=(1,), window_size=8).config
CONFIG = TrainConfig(
    model=SMALL, crop_size=8, batch_size=1, num_iters=6, learning_rate=1e-3, log_every=1, checkpoint_every=1,
    eval_every=3, keep_checkpoints=2,
)  # fmt: skip
IMAGES = [NamedImage("noise", np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))]


def go_on(folder: Path, resume: bool = True) -> None:
    train(CONFIG, images=IMAGES, held_out=IMAGES, out=folder, resume=resume, device="cpu", progress=False)


def curve_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "curve.csv")[["step", "loss", "learning_rate", "psnr_y"]]


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    go_on(folder)
    return folder


def test_killed_before_any_operation_on_files_a_run_goes_on_to_the_same_bits(tmp_path):
    folders = kill_and_go_on(go_on, tmp_path)
    whole = folders.pop(0)
    expected = load_file(whole / "weights.safetensors")
    for point, folder in folders.items():
        weights = load_file(folder / "weights.safetensors")
        assert weights.keys() == expected.keys(), point
        assert all(torch.equal(weights[name], expected[name]) for name in expected), point
        record = read_record(folder / "weights.safetensors")
        assert record == json.loads((folder / "weights.json").read_text()) and record["step"] == 6, point
        assert curve_of(folder).equals(curve_of(whole)), point
        assert files_of(folder) == files_of(whole), point


@pytest.mark.parametrize("lost", [("weights.safetensors", "weights.json"), ("weights.json",)], ids=len)
def test_a_finished_run_gets_its_lost_files_again_and_the_others_stay(tmp_path, whole, lost):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in lost:
        (folder / name).unlink()
    before = {name: (folder / name).stat().st_mtime_ns for name in files_of(folder)}
    before.pop("curve.csv")
    go_on(folder)
    for name in lost:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before


def test_a_run_without_checkpoints_is_not_trained_over(tmp_path, whole):
    shutil.copy(whole / "weights.safetensors", tmp_path)
    for resume, message in ((True, "no checkpoint to go on from"), (False, "holds a run already")):
        with pytest.raises(ValueError, match=message) as error:
            go_on(tmp_path, resume)
        assert "\n" not in str(error.value)
    assert files_of(tmp_path) == ["weights.safetensors"]
    assert (tmp_path / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def hold(folder: Path, begun, end) -> None:
    from taylorir.training.run_folder import claimed

    with claimed(folder, resume=True):
        begun.set()
        end.wait()


def test_a_second_training_is_refused_until_the_first_is_gone(tmp_path):
    begun, end = FORKS.Event(), FORKS.Event()
    first = FORKS.Process(target=hold, args=(tmp_path / "run", begun, end))
    first.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match=r"another training works in .*run: let it end") as error:
        go_on(tmp_path / "run")
    assert "\n" not in str(error.value) and files_of(tmp_path / "run") == []
    first.kill()  # its lock file stays, its lock does not
    first.join(60)
    assert (tmp_path / "run" / ".lock").exists()
    go_on(tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_a_deterministic_run_says_what_may_change_its_bits(tmp_path, caplog, monkeypatch):
    config = dataclasses.replace(CONFIG, deterministic=True)

    def part() -> None:
        options = {"device": "cpu", "progress": False, "max_minutes": 0}
        train(config, images=IMAGES, held_out=IMAGES, out=tmp_path, resume=True, **options)

    part()
    part()
    assert not caplog.messages
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    part()
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert re.search(
        r"bits .* may differ.*: device was .* threads\), now it is .*\(77 threads", caplog.messages[0]
    )


def damaged(tensors: dict, record: dict, what: str) -> None:
    if what.startswith("optimizer"):
        name = next(name for name in tensors if name.startswith("optimizer.exp_avg.conv_first.weight"))
        if what == "optimizer lacks":
            del tensors[name]
        else:
            tensors[name] = torch.zeros(3)
    elif what == "no random state":
        del tensors["rng.cpu"]
    elif what == "odd random state":
        tensors["rng.cpu"] = torch.zeros(3)
    elif what == "nan":
        tensors["model.conv_first.bias"].fill_(torch.nan)
    elif what == "later step":
        record["step"] = 7
    elif what == "no settings":
        record["train"] = {}
    elif what == "settings of another type":
        record["train"] = [1]
    elif what == "setting of another type":
        record["train"]["betas"] = 3
    else:
        del record[what]


@pytest.mark.parametrize(
    "what",
    ["optimizer lacks", "optimizer shape", "no random state", "odd random state", "nan", "later step",
     "no settings", "settings of another type", "setting of another type", "data", "seconds", "cpu_seconds"],
)  # fmt: skip
def test_a_sealed_checkpoint_that_makes_no_sense_is_one_line(tmp_path, whole, what):
    found = latest_checkpoint(whole)
    tensors = {name: tensor.clone() for name, tensor in found.tensors.items()}
    record = json.loads(json.dumps(found.record))
    damaged(tensors, record, what)
    save_checkpoint(tmp_path, 6, tensors, record, keep=1)
    with pytest.raises(ValueError, match="step_00000006") as error:
        go_on(tmp_path)
    assert "\n" not in str(error.value)
