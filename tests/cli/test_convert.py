"""``taylorir survey`` lists each attention, ``taylorir convert`` writes what other commands load."""

import pandas as pd
import pytest
import torch

from taylorir.cli.main import main
from taylorir.convert.folders import load_any
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from tests.convert.families import FAMILIES


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code


@pytest.fixture
def swinir(tmp_path):
    return save_weights(tmp_path / "swinir.safetensors", build_model("swinir_tiny_x2"), {})


def test_each_attention_is_listed(tmp_path, capsys):
    run("survey", "swinir_tiny_x2", "--lr-size", 16, "--out", tmp_path / "sites.csv")
    rows = pd.read_csv(tmp_path / "sites.csv", keep_default_na=False)
    assert set(rows["class"]) == {"WindowAttention"} and rows.known.all() and 64 in set(rows["keys"])
    assert "layers.0.residual_group.blocks.0.attn WindowAttention" in " ".join(
        capsys.readouterr().out.split()
    )
    run("survey", "taylorswinir_tiny_x2", "--lr-size", 16)
    assert capsys.readouterr().out == "taylorswinir_tiny_x2 attends nowhere by softmax\n"


def test_a_converted_swinir_is_loaded_as_what_it_is(swinir, tmp_path):
    target = tmp_path / "taylor.safetensors"
    run("convert", swinir, target, "--temperature", 2, "--centre-keys", "--window-size", 16)
    loaded = load_any(target)
    config = loaded.config
    assert (config.attention, config.centre_keys, config.window_size) == ("taylor", True, 16)
    assert loaded.layers[0].residual_group.blocks[0].attn.temperature.eq(2).all()
    assert torch.equal(loaded.conv_first.weight, load_any(swinir).conv_first.weight)


def test_a_converted_swin2sr_is_loaded_as_what_it_is(tmp_path):
    FAMILIES["transformers Swin2SR"].network().network.float().save_pretrained(tmp_path / "softmax")
    run("convert", tmp_path / "softmax", tmp_path / "taylor", "--temperature", 2)
    loaded = load_any(tmp_path / "taylor")
    attention = loaded.network.swin2sr.encoder.stages[0].layers[0].attention.self
    assert attention.temperature.tolist() == [2, 2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("survey", "swinir_tiny_x2", "--lr-size", 0), "--lr-size"),
        (("survey", "bicubic"), "bicubic is no network"),
        (("convert", "bicubic", "out"), "bicubic is no network"),
        (("convert", "{swinir}", "out"), "OUT must end in .safetensors for a SwinIR, got out"),
    ],
)
def test_misuse_is_one_line(swinir, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([str(argument).format(swinir=swinir) for argument in arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error


def test_what_no_file_can_hold_is_refused(tmp_path, capsys):
    torch.save(FAMILIES["DAT"].network().float().state_dict(), tmp_path / "dat.pth")
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "dat.pth"), str(tmp_path / "taylor")])
    assert "no file can hold a converted DAT" in capsys.readouterr().err
