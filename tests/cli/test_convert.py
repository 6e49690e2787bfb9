"""``taylorir survey`` lists each attention, ``taylorir convert`` writes what other commands load."""

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from taylorir.cli.main import main
from taylorir.convert.conversion import taylorize
from taylorir.convert.files import load_converted_file, save_converted
from taylorir.convert.folders import load_any
from taylorir.images.io import write_image
from taylorir.networks.checkpoint import save_weights
from taylorir.networks.variants import build_model
from tests.convert.families import FAMILIES
from tests.pictures import noise
from tests.random_networks import stirred


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


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_what_is_kept_is_kept_in_the_file(swinir, tmp_path, capsys):
    torch.save(FAMILIES["DAT"].network().float().state_dict(), tmp_path / "dat.pth")
    for source in (swinir, tmp_path / "dat.pth"):
        run("survey", source, "--lr-size", 16, "--out", tmp_path / "sites.csv")
        sites = pd.read_csv(tmp_path / "sites.csv").query("known")["module"].drop_duplicates().tolist()
        target = tmp_path / "some.safetensors"
        run("convert", source, target, "--keep", sites[0], "--keep", sites[2])
        original, loaded, lr = load_any(source), load_any(target), torch.rand(1, 3, 16, 16)
        inner = getattr(original, "network", original)
        some = taylorize(inner, keep=[sites[0], sites[2]]).eval()
        with torch.no_grad():
            assert torch.equal(loaded(lr), some(lr))
            assert not torch.equal(loaded(lr), taylorize(inner)(lr))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("survey", "swinir_tiny_x2", "--lr-size", 0), "--lr-size"),
        (("survey", "bicubic"), "bicubic is no network"),
        (("convert", "bicubic", "out"), "bicubic is no network"),
        (("convert", "{swinir}", "out.safetensors", "--calibrate", "nowhere"), "nowhere: No such file"),
        (("convert", "{swinir}", "out", "--keep", "layer"), "keep names no module of SwinIR: 'layer'"),
        (("convert", "{swinir}", "out"), "OUT must end in .safetensors for a SwinIR, got out"),
    ],
)
def test_misuse_is_one_line(swinir, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([str(argument).format(swinir=swinir) for argument in arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", ["DAT", "HAT"])
def test_a_converted_network_of_others_is_loaded_as_what_it_is(name, tmp_path):
    network, image = FAMILIES[name].network().float(), FAMILIES[name].image().float()
    torch.save(network.state_dict(), tmp_path / "softmax.pth")
    run("convert", tmp_path / "softmax.pth", tmp_path / "taylor.safetensors", "--temperature", 2)
    loaded = load_any(tmp_path / "taylor.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(image), taylorize(network, temperature=2)(image))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_folder_of_pictures_calibrates(swinir, tmp_path):
    (tmp_path / "hr").mkdir()
    write_image(tmp_path / "hr" / "noise.png", noise(100, 100, 3))
    torch.save(FAMILIES["SwinIR"].network().float().state_dict(), tmp_path / "others.pth")
    for source in (swinir, tmp_path / "others.pth"):
        plain, near = tmp_path / "plain.safetensors", tmp_path / "near.safetensors"
        run("convert", source, plain)
        run("convert", source, near, "--calibrate", tmp_path / "hr", "--steps", 2, "--quiet")
        before, after = load_any(plain).state_dict(), load_any(near).state_dict()
        assert before.keys() == after.keys()
        assert any("temperature" in name and not torch.equal(before[name], x) for name, x in after.items())


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_what_was_learned_after_conversion_is_in_the_file(tmp_path):
    network, image = FAMILIES["DAT"].network().float(), FAMILIES["DAT"].image().float()
    trained = stirred(taylorize(network, keep=["layers.0.blocks.2"]), seed=1)
    save_converted(tmp_path / "taylor.safetensors", network, trained, {"keep": ["layers.0.blocks.2"]})
    with torch.no_grad():
        assert torch.equal(load_converted_file(tmp_path / "taylor.safetensors")(image), trained(image))
    save_file(network.state_dict(), tmp_path / "softmax.safetensors")
    with pytest.raises(ValueError, match="holds no converted network of others"):
        load_converted_file(tmp_path / "softmax.safetensors")
