"""Files of weights and training states: whole or absent, checked when read, and refused in one line."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from taylorir.networks.checkpoint import (
    Checkpoint,
    checkpoint_files,
    latest_checkpoint,
    load_checkpoint,
    pack_state,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_weights,
    unpack_state,
)
from taylorir.networks.config import config_to_json
from taylorir.networks.fitting import fit_weights
from taylorir.networks.variants import build_model

MODEL = build_model("swinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,))
RECORD = {"step": 0, "model": json.loads(config_to_json(MODEL.config)), "train": {}}


def save_steps(folder, *steps, keep=9):
    for step in steps:
        save_checkpoint(
            folder, step, {"ema.x": torch.full((3,), float(step))}, {**RECORD, "step": step}, keep=keep
        )


def steps_of(folder):
    return [int(path.stem[5:]) for path in checkpoint_files(folder)]


def test_what_is_written_is_read(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor([1, 2], dtype=torch.uint8)}
    tensors["c"] = tensors["a"][1:]  # shares memory with a
    path = save_checkpoint(tmp_path, 7, tensors, {**RECORD, "step": 7}, keep=1)
    found = read_checkpoint(path)
    assert found.record["step"] == 7 and found.config == MODEL.config
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000007.json", "step_00000007.safetensors"]


def test_the_last_ones_are_kept_and_a_discarded_future_is_not(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, keep=3)
    assert steps_of(tmp_path) == [2, 3, 4]
    save_steps(tmp_path, 3, keep=2)  # the run began again before step 4
    assert steps_of(tmp_path) == [2, 3]
    save_steps(tmp_path, 4, 5, keep=5)
    assert steps_of(tmp_path) == [2, 3, 4, 5]
    (tmp_path / "step_00000002.json").unlink()  # as where the removal of it was cut short
    (tmp_path / "step_00000003.safetensors").unlink()
    save_steps(tmp_path, 6, keep=2)
    assert steps_of(tmp_path) == [5, 6] and len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "json cut", "json missing key", "json of text"]
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, damage):
    save_steps(tmp_path, 1, 2)
    newest = checkpoint_files(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    record = newest.with_suffix(".json")
    if damage == "cut":
        newest.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-1] ^= 1
        newest.write_bytes(content)
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "json cut":
        record.write_bytes(record.read_bytes()[:40])
    elif damage == "json missing key":
        record.write_text("{}")
    else:
        record.write_bytes(b"\xff\xfe")
    assert latest_checkpoint(tmp_path).record["step"] == 1
    assert len(caplog.messages) == 1 and "falling back to the checkpoint before it" in caplog.messages[0]
    checkpoint_files(tmp_path)[0].write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no checkpoint in .* can be read; the newest: .*00000002.* damaged"
    ) as error:
        latest_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_exists_from_its_json_on(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    replace = os.replace

    def killed_before_the_json(source, target):
        if str(target).endswith(".json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed_before_the_json)
    with pytest.raises(OSError, match=r"cannot write .*step_00000002.json: No space left on device"):
        save_steps(tmp_path, 2)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000001.json", "step_00000001.safetensors"]
    (tmp_path / "step_00000002.safetensors").write_bytes(b"whole, but its JSON was never written")
    assert latest_checkpoint(tmp_path).record["step"] == 1
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000001.json", "step_00000001.safetensors"]


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        latest_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_weights_files_build_their_network(tmp_path):
    path = save_weights(tmp_path / "w.safetensors", MODEL, {"note": "x"})
    assert json.loads(path.with_suffix(".json").read_text())["note"] == "x"
    path.with_suffix(".json").unlink()  # the header says it all
    model = load_checkpoint(path)
    assert model.config == MODEL.config and not model.training
    x = torch.rand(1, 3, 9, 11)
    assert torch.equal(model(x), MODEL.eval()(x))


def test_weights_with_only_a_json_beside(tmp_path):
    model = build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,))
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"holds no SwinIR: it lacks .*relative_position_bias_table"):
        load_checkpoint(tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps({"model": json.loads(config_to_json(model.config))}))
    assert load_checkpoint(tmp_path / "w.safetensors").config == model.config


def test_the_averaged_weights_are_those_of_a_checkpoint(tmp_path):
    averaged = build_model("swinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,))
    optimizer = torch.optim.Adam(MODEL.parameters(), fused=True)
    MODEL(torch.rand(1, 3, 8, 8)).mean().backward()
    optimizer.step()
    tensors = pack_state(MODEL, averaged, optimizer, torch.device("cpu"))
    save_checkpoint(tmp_path, 1, tensors, {**RECORD, "step": 1}, keep=1)
    for source in (tmp_path, tmp_path / "step_00000001.safetensors"):
        for got, expected in zip(load_checkpoint(source).parameters(), averaged.parameters(), strict=True):
            assert torch.equal(got, expected)


def test_state_goes_round(tmp_path):
    torch.manual_seed(1)
    models = [build_model("swinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,)) for _ in range(4)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.1, fused=True) for model in models]
    for _ in range(2):
        models[0](torch.rand(1, 3, 8, 8)).square().mean().backward()
        optimizers[0].step()
    tensors = {
        n: t.clone() for n, t in pack_state(models[0], models[1], optimizers[0], torch.device("cpu")).items()
    }
    expected = torch.rand(3)
    unpack_state(
        Checkpoint(tmp_path, tensors, RECORD), models[2], models[3], optimizers[2], torch.device("cpu")
    )
    assert torch.equal(torch.rand(3), expected)  # the random numbers go on
    again = pack_state(models[2], models[3], optimizers[2], torch.device("cpu"))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors if name != "rng.cpu")


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("swinir_tiny_x2", {"embed_dim": 24, "num_heads": 2, "depths": (1,)}, "has shape"),
        ("swinir_tiny_x2", {"embed_dim": 12, "num_heads": 2, "depths": (2,)}, "it lacks layers.0"),
        ("taylorswinir_tiny_x2", {"embed_dim": 12, "num_heads": 2, "depths": (1,)}, "it lacks layers.0"),
    ],
    ids=["wider", "deeper", "taylor"],
)
def test_weights_of_another_architecture_are_one_line(name, changes, line):
    other = build_model(name, **changes)
    with pytest.raises(ValueError, match=f"w.safetensors is of another architecture.*{line}"):
        fit_weights(other, dict(MODEL.named_parameters()), "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_no_weights_file_is_one_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w.safetensors (is empty|is no weights file|holds no)") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_cut_weights_file_is_one_line(tmp_path):
    path = save_weights(tmp_path / "w.safetensors", MODEL, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_checkpoint(path)


def test_weights_that_are_there_are_not_written_again(tmp_path):
    path = save_weights(tmp_path / "w.safetensors", MODEL, {"note": "x"})
    files = [path, path.with_suffix(".json")]
    before = [file.stat().st_ino for file in files]
    save_weights(path, MODEL, {"note": "x"})
    assert [file.stat().st_ino for file in files] == before
    save_weights(path, MODEL, {"note": "y"})
    assert path.stat().st_ino != before[0]
