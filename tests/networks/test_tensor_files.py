"""Weights as people have them load; what is none is told in one line; no code of a file runs."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from taylorir.networks.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint, save_weights
from taylorir.networks.config import config_to_json
from taylorir.networks.variants import build_model

MODEL = build_model("swinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,)).eval()
STATE = MODEL.state_dict()
LEARNED = MODEL.learned_state_dict()
RECORD = {"model": json.loads(config_to_json(MODEL.config))}


def named(prefix: str, state: dict = STATE) -> dict:
    return {prefix + name: value for name, value in state.items()}


def other(factor: float = 2.0) -> dict:
    return {name: factor * value for name, value in LEARNED.items()}


# ------------------------------------------------------------------------------------- what people have


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        LEARNED,
        {name: value.half() for name, value in LEARNED.items()},
        {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 1.0}},
        {"model": STATE},
        {"model": {"state_dict": STATE}},
        {"params": other(), "params_ema": STATE},
        {"params": other(), "params-ema": STATE},
        {"params_ema": named("module.")},
        named("_orig_mod."),
        named("module._orig_mod."),
        {name.replace("layers.0.", "layers.0._orig_mod."): value for name, value in STATE.items()},
        {"state_dict": {**named("net_g."), "net_d.conv0.weight": torch.zeros(3)}},
        {"state_dict": {**named("net_g.", other()), **named("net_g_ema.")}},
        {"state_dict": named("model.net_g.")},
    ],
    ids=lambda content: " ".join(list(content)[:2]),
)
@pytest.mark.parametrize("suffix", [".pth", ".CKPT", ".bin", ".safetensors"])
def test_official_weights_load_whatever_wraps_them(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        flat = {n: v.contiguous() for n, v in content.items() if isinstance(v, torch.Tensor)}
        if len(flat) < len(content):
            pytest.skip("safetensors holds tensors only")
        save_file(flat, path)
    else:
        torch.save(content, path)
    loaded = load_checkpoint(path)
    assert not loaded.training and loaded.config.embed_dim == 12
    for name, parameter in loaded.named_parameters():
        assert torch.allclose(parameter, LEARNED[name], atol=2e-3), name


def test_files_of_before_zip_load(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(tmp_path / "old.pth").conv_first.weight, MODEL.conv_first.weight)


# ------------------------------------------------------------------------------------------ what is none


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def archive(*names: str):
    def write(path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "x")

    return write


def saved(content: object):
    return lambda path: torch.save(content, path)


def holding(content: bytes):
    return lambda path: path.write_bytes(content)


def with_bias(value: torch.Tensor):
    return saved({**LEARNED, "conv_first.bias": value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (holding(b""), "is empty"),
        (holding(b"\n <!DOCTYPE html><html>404</html>"), "a page of HTML .* a web page"),
        (holding(b'{"error": "not found"}'), "it is JSON text"),
        (holding(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
        (holding(b"\x1f\x8b\x08rest"), "compressed by gzip"),
        (holding(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (holding(bytes(range(256))), "damaged, cut short or of another kind"),
        (holding(b"\x80\x02}q\x00X\x01\x00"), "damaged, cut short or of another kind"),
        (holding(pickle.dumps({"a": np.zeros(3)})), "holds no|could make its|damaged"),
        (archive("weights.pth"), "a zip archive of other files"),
        (archive("weights/constants.pkl", "weights/data.pkl"), "a TorchScript program"),
        (saved(torch.nn.Linear(2, 2)), r"make its torch\.nn.*\.Linear; save the state dict alone"),
        (saved({"state_dict": STATE, "args": argparse.Namespace()}), r"make its argparse\.Namespace"),
        (saved([torch.zeros(1)]), "no state dict of tensors, but a list"),
        (saved({}), "an empty dict"),
        (saved({1: torch.zeros(1)}), "1 names a Tensor"),
        (saved({"a": {"b": torch.zeros(1)}}), "'a' names a dict"),
        (saved({"conv_first.weight": torch.tensor(1.0)}), "holds no SwinIR"),
        (saved({"conv_first.weight": torch.zeros(0, 3, 3, 3), **named("", {})}), "holds no SwinIR"),
        (with_bias(torch.full((12,), torch.nan)), "conv_first.bias is not finite"),
        (with_bias(torch.zeros(12, dtype=torch.int64)), r"is torch\.int64"),
        (with_bias(torch.zeros(12, dtype=torch.complex64)), r"is torch\.complex64"),
        (with_bias(torch.zeros(12).to_sparse()), r"torch\.sparse_coo"),
        (with_bias(torch.zeros(1).expand(2**40)), r"shape \[1099511627776\], \[12\] expected"),
        (with_bias(torch.empty(12, device="meta")), "conv_first.bias is .* on meta"),
    ],
)  # fmt: skip
def test_what_holds_no_weights_is_one_line(tmp_path, make, message):
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_no_code_of_a_file_runs(tmp_path):
    for content in (Touch(str(tmp_path / "ran")), {"params": Touch(str(tmp_path / "ran"))}):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=r"only running code from it could make its _?io\.open"):
            load_checkpoint(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------- what our own files claim


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 10**12, "num_heads": 2}, "of another architecture: .* 1000000000000 channels"),
        ({"depths": [1] * 10**5, "num_heads": 2}, "tensors for 100000 blocks"),
        ({"window_size": 10**9}, "windows of 1000000000"),
        ({"img_size": 10**9}, "crops of 1000000000"),
        ({"embed_dim": 4096, "num_heads": 2}, "of another architecture: conv_first.weight has shape"),
        ({"embed_dim": "12"}, "embed_dim must be"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be"),
    ],
)
def test_a_header_that_asks_for_more_than_the_file_holds_is_refused(tmp_path, changes, message):
    record = {"model": {**RECORD["model"], **changes}}
    save_file(LEARNED, tmp_path / "w.safetensors", metadata={"taylorir": json.dumps(record)})
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(tmp_path / "w.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5, '{"a":' * 5000, '{"model": ' + "[" * 900 + "]" * 900 + "}", "[]", "null", "{",
        '{"model": 1}',
    ],
    ids=["deep list", "deep objects", "deep model", "list", "null", "cut", "number"],
)  # fmt: skip
def test_a_header_that_is_no_record_is_one_line(tmp_path, text):
    save_file(LEARNED, tmp_path / "w.safetensors", metadata={"taylorir": text})
    with pytest.raises(
        ValueError, match=r"(is damaged: its record is no JSON object|does not say which network)"
    ):
        load_checkpoint(tmp_path / "w.safetensors")


def test_the_sealed_header_decides_not_the_json_beside(tmp_path):
    tensors = named("ema.", LEARNED)
    path = save_checkpoint(tmp_path, 7, tensors, {**RECORD, "step": 7, "train": {}}, keep=1)
    beside = path.with_suffix(".json")
    lie = {**json.loads(beside.read_text()), "step": 10**9, "model": {}, "train": {"seed": 1}}
    beside.write_text(json.dumps(lie))
    found = read_checkpoint(path)
    assert found.record == {**RECORD, "step": 7, "train": {}} and found.config == MODEL.config
    for step in (-1, 7.5, True, "7", None):
        path = save_checkpoint(tmp_path, 8, tensors, {**RECORD, "step": step, "train": {}}, keep=1)
        with pytest.raises(ValueError, match="its header holds no record of a checkpoint"):
            read_checkpoint(path)


def test_weights_with_a_deep_json_beside(tmp_path):
    taylor = build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=2, depths=(1,))
    path = save_weights(tmp_path / "w.safetensors", taylor, {})
    path.with_suffix(".json").write_text("[" * 10**6)
    assert load_checkpoint(path).config == taylor.config  # the header says it all
    save_file(taylor.learned_state_dict(), path)
    with pytest.raises(ValueError, match=r"w\.json is damaged: its record is no JSON object"):
        load_checkpoint(path)
