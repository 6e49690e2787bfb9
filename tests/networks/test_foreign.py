"""Networks of others: read by spandrel or transformers, they go through every tool that takes a network."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from taylorir.attribution.maps import Patch, local_attribution
from taylorir.cli.main import main
from taylorir.cost.network_flops import cost_rows, flops_of
from taylorir.cost.network_memory import memory_of
from taylorir.cost.runtime import TimedNetwork, network_rows
from taylorir.datasets.sets import NamedImage
from taylorir.evaluation.scores import evaluate
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.images.metrics import psnr
from taylorir.images.pixels import to_image, to_tensor
from taylorir.images.resize import imresize
from taylorir.networks.anatomy import count_gmacs
from taylorir.networks.foreign import ForeignConfig, ForeignNetwork
from taylorir.networks.variants import build_model
from taylorir.networks.weights import load_network
from tests.networks.foreign_networks import BUILDERS, foreign_network
from tests.pictures import noise


@pytest.fixture
def stored(tmp_path):
    """Gives a network of spandrel and the file of its weights."""

    def of(family: str):
        network = foreign_network(family)
        torch.save({"params": network.state_dict()}, tmp_path / f"{family}.pth")
        return network, tmp_path / f"{family}.pth"

    return of


def run(command: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == code


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.filterwarnings("ignore:torch.meshgrid", "ignore:'saved_variables'")
def test_a_file_of_others_goes_through_every_tool(family, stored, tmp_path, capsys):
    network, path = stored(family)
    model = load_network(path)
    assert (model.config.architecture, model.config.upscale, model.training) == (family, 2, False)
    x = torch.rand(1, 3, 16, 32)
    with torch.no_grad():
        assert torch.equal(model(x), network(x))
        assert [model(torch.rand(1, 3, *size)).shape[2:] for size in ((1, 5), (17, 9))] == [(2, 10), (34, 18)]
    hr = noise(64, 96, 3)
    lr = imresize(hr, 0.5)
    with torch.no_grad():
        whole = to_image(network(to_tensor(lr)))
    row = evaluate(model, [NamedImage("x", hr)]).iloc[0]
    assert (row.upscale, row.psnr_y) == (2, psnr(whole, hr, crop_border=2))
    tiled = super_resolve(model, lr, tile=32, overlap=16)
    assert tiled.shape == whole.shape and np.abs(tiled.astype(int) - whole).mean() < 16
    assert 0 < local_attribution(model, torch.rand(1, 3, 16, 16), Patch(8, 8), fold=2).diffusion_index <= 100
    weights = sum(p.nbytes for p in network.parameters())
    memory = {mode: memory_of(model, 16, mode, batch=2).total for mode in ("infer", "train")}
    assert weights < memory["infer"] and memory["train"] > 4 * weights  # gradients and two moments of Adam
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(2, 3, 16, 16))
    assert flops_of(model, 16, batch=2) == counter.get_total_flops()
    assert flops_of(model, 16, "train", batch=2) > 2 * counter.get_total_flops()
    rows = network_rows([TimedNetwork("x", family, 1, model=model)], [16], batch=2, seconds=0.01)
    assert rows.status.tolist() == ["ok"] and rows.variant.tolist() == [family]
    run(["export", str(path), str(tmp_path / "x.onnx")], code=2)
    refused = f"only SwinIR and TaylorSwinIR can be exported; {path} is of {family}\n"
    assert capsys.readouterr().err == f"taylorir: error: {refused}"
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_takes_a_file_of_others_and_says_what_it_cannot_do(stored, tmp_path, capsys):
    _, path = stored("ESRGAN")
    run(["evaluate", str(path), "--out", str(tmp_path / "rows.csv"), "--quiet", "--device", "cpu"])
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows.upscale) == {2} and set(rows.model) == {"ESRGAN"}
    run(["benchmark", "time", str(path), "--lr-size", "8", "--seconds", "0.01"])
    run(["benchmark", "network", str(path), "swinir_tiny_x2", "--lr-size", "8", "--mode", "train"])
    assert capsys.readouterr().out.count("ESRGAN") == 2
    for command, message in (
        (["export", str(path), str(tmp_path / "x.onnx")], "only SwinIR and TaylorSwinIR can be exported"),
        (["evaluate", str(path), "--upscale", "4"], "upscale 4 was asked of a model that upscales by 2"),
        (["benchmark", "time", str(path), "--window-size", "8"], "--window-size are of variants"),
    ):
        run(command, code=2)
        assert message in capsys.readouterr().err


def test_a_wrong_scale_is_an_error():
    network = ForeignNetwork(torch.nn.Upsample(scale_factor=3), ForeignConfig("nearest", 2))
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)  # cropped: padding is not to be seen
    with pytest.raises(ValueError, match=r"the model turns \[1, 3, 5, 7\] into \[1, 3, 15, 21\]"):
        super_resolve(network.network, noise(5, 7, 3), upscale=2)


def test_padding_goes_to_the_multiple_the_smallest_side_and_the_square():
    seen = []
    network = torch.nn.Identity()
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[2:]))
    for settings in ({"window_size": 4}, {"window_size": 4, "smallest": 16}, {"square": True}):
        model = ForeignNetwork(network, ForeignConfig("x", 1, **settings))
        x = torch.rand(1, 3, 5, 17)
        assert torch.equal(model(x), x)
    assert seen == [(8, 20), (16, 32), (17, 17)]


def test_what_is_no_network_is_one_line(tmp_path, stored, monkeypatch):
    network, path = stored("OmniSR")
    state = network.state_dict()
    first = next(iter(state))
    for weights, message in (
        ({"a.weight": torch.zeros(3)}, r"holds no SwinIR: it lacks .*; spandrel knows no architecture"),
        (state | {first: torch.full_like(state[first], torch.nan)}, f"{first} is not finite"),
    ):
        torch.save(weights, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=message) as caught:
            load_network(tmp_path / "other.pth")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ValueError, match=r"needs the package spandrel: pip install 'taylorir\[foreign\]'"):
        load_network(path)


def test_a_damaged_swinir_is_no_network_of_others(tmp_path):
    model = build_model("swinir_tiny_x2")
    torch.nn.init.constant_(model.conv_first.bias, torch.nan)
    torch.save(model.state_dict(), tmp_path / "swinir.pth")
    with pytest.raises(ValueError, match=r"conv_first\.bias is not finite$"):
        load_network(tmp_path / "swinir.pth")


def test_libraries_of_others_are_imported_when_a_file_of_theirs_is_opened():
    code = (
        "import sys, taylorir.networks.weights, taylorir.evaluation.scores, taylorir.networks.foreign;"
        "print([name for name in ('spandrel', 'torchvision', 'transformers', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["swinir_s_x2", "taylorswinir_s_x3", "swinir_denoise_gray"])
def test_operations_of_our_own_are_those_of_the_anatomy(name):
    short = {"depths": (2,), "embed_dim": 16, "num_heads": 2, "window_size": 8, "shift": False}
    model = build_model(name, **short)
    assert flops_of(model, 24) == pytest.approx(2e9 * count_gmacs(name, 24, 24, **short))
    rows = cost_rows({"x": model}, [16, 24], ["infer", "train"])
    assert rows.gflops[2] == flops_of(model, 24) / 1e9
    assert rows.peak_memory_mib[3] == memory_of(model, 24, "train").total / 2**20
    assert set(rows.parameters) == {sum(p.numel() for p in model.parameters())}
    with pytest.raises(ValueError, match="mode must be one of train, infer, not 'x'"):
        flops_of(model, 24, "x")


def test_fused_attention_on_a_cpu_is_counted_forward_and_backward():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    n, d, heads = 40, 40, 3  # 4 n n d a head; backward once more the scores, and four such products
    forward = heads * 4 * n * n * d
    assert flops_of(Attention(), 40) == forward
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), Attention())
    convolution = 2 * 9 * n * d
    assert flops_of(model, 40, "train") == forward + 5 * 2 * heads * n * n * d + 2 * convolution


# ----------------------------------------------------------------------------------------- transformers


def swin2sr(**settings):
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    torch.manual_seed(0)
    config = transformers.Swin2SRConfig(
        image_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, upscale=2, mlp_ratio=2.0,
        upsampler="pixelshuffledirect", **settings,
    )  # fmt: skip
    return transformers.Swin2SRForImageSuperResolution(config).eval()


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_folder_of_transformers_is_a_network(tmp_path, capsys):
    network = swin2sr()
    network.save_pretrained(tmp_path / "swin2sr")
    model = load_network(tmp_path / "swin2sr")
    assert model.config == ForeignConfig("Swin2SR", 2, 3, 4)
    lr = noise(13, 18, 3)
    padded = torch.nn.functional.pad(to_tensor(lr), (0, 2, 0, 3), mode="reflect")
    with torch.no_grad():
        expected = to_image(network(padded).reconstruction[..., :26, :36])
    assert np.array_equal(super_resolve(model, lr), expected)
    assert flops_of(model, 16) > 0 and memory_of(model, 16, "train").total > 0
    run(["benchmark", "network", str(tmp_path / "swin2sr"), "--lr-size", "8"])
    assert "swin2sr" in capsys.readouterr().out


def test_other_folders_of_transformers_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type is 'bert', known is 'swin2sr'"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="model_type is 'unreadable'"):
        load_network(tmp_path)
