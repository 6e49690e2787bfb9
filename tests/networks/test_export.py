"""Exported networks give what the network gives, at any size: in PyTorch, in torch.export and in ONNX."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from taylorir.networks import export
from taylorir.networks.variants import build_model
from tests.random_networks import stirred

TOLERANCE = {"rtol": 0, "atol": 1e-5}
NEEDS = ("onnx", "onnxscript", "onnxruntime")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
onnx = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (taylorir[export])")

VARIANTS = {
    "softmax": {"window_size": 8},
    "softmax fused": {"window_size": 8, "softmax_backend": "fused"},
    "softmax no shift": {"window_size": 8, "shift": False},
    "softmax pixelshuffle x3": {"window_size": 8, "upsampler": "pixelshuffle", "upscale": 3},
    "taylor direct": {"attention": "taylor", "window_size": 4},
    "taylor efficient": {"attention": "taylor", "window_size": 12},
    "taylor scaled": {"attention": "taylor", "window_size": 12, "scale_output": True},
    "taylor no shift": {"attention": "taylor", "window_size": 12, "shift": False},
    "taylor rope": {"attention": "taylor", "window_size": 12, "position": "rope"},
    "taylor lepe": {"attention": "taylor", "window_size": 12, "position": "lepe"},
    "taylor rib direct": {"attention": "taylor", "window_size": 8, "position": "rib"},
    "taylor rib efficient": {
        "attention": "taylor",
        "window_size": 18,
        "position": "rib",
        "centre_keys": True,
    },
    "taylor rib scaled": {"attention": "taylor", "window_size": 4, "position": "rib", "scale_output": True},
    "softmax rib": {"window_size": 8, "position": "rib", "softmax_backend": "flash"},
    "ragged softmax": {"window_size": 8, "border": "ragged"},
    "ragged direct": {"attention": "taylor", "window_size": 4, "border": "ragged", "position": "rope"},
    "ragged efficient": {"attention": "taylor", "window_size": 12, "border": "ragged", "position": "lepe"},
    "ragged no shift": {"attention": "taylor", "window_size": 12, "border": "ragged", "shift": False},
    "ragged rib": {
        "attention": "taylor",
        "window_size": 18,
        "border": "ragged",
        "position": "rib",
        "centre_keys": True,
    },
    "ragged patches of 2": {"attention": "taylor", "window_size": 8, "patch_size": 2, "border": "ragged"},
    "patches of 2": {"attention": "taylor", "window_size": 8, "patch_size": 2},
    "grey denoising": {"upscale": 1, "upsampler": "", "in_chans": 1},
    "JPEG artefacts": {"upscale": 1, "upsampler": "", "img_range": 255.0, "window_size": 7},
    "real-world": {"upscale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv"},
}


def network(**overrides) -> nn.Module:
    return stirred(build_model("swinir_tiny_x2", **{"depths": (2,), **overrides})).eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_exportable_network_is_the_network(name):
    model = network(**VARIANTS[name])
    exportable = export.ExportableNetwork(model)
    for size in ((24, 24), (17, 31), (3, 5), (1, 1)):
        lr = torch.rand(2, model.config.in_chans, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(exportable(lr), model(lr), **TOLERANCE)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 17])
def test_sides_are_padded_by_reflecting_again_and_again(length):
    padded = np.pad(np.arange(length), (0, -length % 8), mode="reflect" if length > 1 else "edge")
    assert export._reflected(length, 8).tolist() == padded.tolist()


def test_what_is_exported_holds_the_parameters_and_nothing_beside():
    model = network(attention="taylor", window_size=12)
    names = {name.removeprefix("network.") for name in export.ExportableNetwork(model).state_dict()}
    assert {name.replace(".attn.attention.", ".attn.") for name in names} == set(model.state_dict())


def test_attention_takes_part():
    """Otherwise the test above would pass with any attention."""
    model, other = network(attention="taylor", window_size=12), network(attention="taylor", window_size=12)
    with torch.no_grad():
        other.layers[0].residual_group.blocks[1].attn.temperature.mul_(0.5)
        lr = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        assert (export.ExportableNetwork(other)(lr) - model(lr)).abs().max() > 1e-4


def test_the_network_is_left_as_it_was_and_its_copy_drops_no_branch():
    model = network(drop_path_rate=0.5).train()
    lr = torch.rand(4, 3, 9, 9)
    with torch.no_grad():
        found = export.ExportableNetwork(model)(lr)
        assert model.training and all(parameter.requires_grad for parameter in model.parameters())
        assert type(model.layers[0].residual_group.blocks[0].attn).__name__ == "WindowAttention"
        torch.testing.assert_close(found, model.eval()(lr), **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("taylor", ".pt2"),
        pytest.param("taylor", ".onnx", marks=onnx),
        pytest.param("softmax", ".onnx", marks=onnx),
        ("grey denoising", ".pt2"),
        ("ragged rib", ".pt2"),
        pytest.param("ragged softmax", ".onnx", marks=onnx),
    ],
)
def test_exported_files_take_any_size_and_number_of_images(name, suffix, tmp_path):
    """Windows of 48 make one window of a small image: a size that tracers like to take for fixed."""
    settings = {"embed_dim": 8, "num_heads": 2, "window_size": 4}
    if name == "taylor":
        settings |= {"attention": "taylor", "window_size": 48, "position": "lepe", "scale_output": True}
    model = network(**VARIANTS.get(name, {}) | settings)
    path = export.export_network(model, tmp_path / f"network{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    run = export.load_exported(path)
    for batch, *size in ((1, 1, 1), (3, 1, 9), (3, 13, 50), (1, 200, 333)):
        shape = (batch, model.config.in_chans, *size)
        lr = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found, expected = run(lr), model(lr)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    differences = export.exported_difference(model, path, (shape[2:],))
    assert differences == {shape[2:]: pytest.approx(float((found - expected).abs().max()))}


def test_nan_is_no_agreement(tmp_path, monkeypatch):
    model = network()
    nn.init.constant_(model.conv_first.bias, float("nan"))
    exported = type("Program", (), {"module": lambda self: model})()
    monkeypatch.setattr(torch.export, "load", lambda path: exported)
    with pytest.raises(ValueError, match=r"network\.pt2: NaN or infinity comes of an image of 48x48 pixels"):
        export.exported_difference(model, tmp_path / "network.pt2")


def test_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path: got 'network\.pth', expected a name that ends in \.pt2 or"):
        export.export_network(network(), tmp_path / "network.pth")
    with pytest.raises(TypeError, match="model must be a SwinIR or TaylorSwinIR of this package, got Linear"):
        export.export_network(nn.Linear(1, 1), tmp_path / "network.pt2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="ONNX needs the packages onnx, onnxscript: pip install"):
        export.export_network(network(), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    from taylorir.cli.main import main

    for arguments, message in (
        (
            ["export", "bicubic", str(tmp_path / "x.onnx")],
            "'bicubic'; give a variant or a checkpoint",
        ),
        (["export", "nothing", str(tmp_path / "x.onnx")], "unknown model 'nothing'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
