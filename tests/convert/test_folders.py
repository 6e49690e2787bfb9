"""A converted Swin2SR of transformers is saved as such, and is the same when it is loaded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from taylorir.cli.main import main
from taylorir.convert.conversion import taylorize
from taylorir.convert.folders import load_any, load_converted
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.networks.weights import load_network
from tests.pictures import noise
from tests.random_networks import stirred


@pytest.fixture
def network():
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    config = transformers.Swin2SRConfig(
        image_size=16, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4, upscale=2, mlp_ratio=2.0,
        upsampler="pixelshuffledirect",
    )  # fmt: skip
    return stirred(transformers.Swin2SRForImageSuperResolution(config)).eval()


@pytest.mark.parametrize("settings", [{}, {"window_size": 8, "keep": ["swin2sr.encoder.stages.0"]}])
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_converted_network_is_the_same_when_loaded_again(network, settings, tmp_path):
    if "keep" in settings and not hasattr(network.swin2sr.encoder, "stages"):
        settings = {"keep": ["swin2sr.encoder.layers.0"]}
    converted = stirred(taylorize(network, **settings), seed=1).eval()
    converted.save_pretrained(tmp_path)
    loaded = load_converted(tmp_path)
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        expected = converted(x).reconstruction
        assert torch.equal(loaded(x), expected)
        assert not torch.allclose(network(x).reconstruction, expected)
    assert not hasattr(network.config, "taylorir")
    assert type(load_any(tmp_path)) is type(loaded)
    with pytest.raises(ValueError, match=r"converted network: load it by taylorir\.convert\.load_any"):
        load_network(tmp_path)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_the_command_takes_both(network, tmp_path):
    Image.fromarray(noise(9, 13, 3)).save(tmp_path / "in.png")
    for name, model in (("softmax", network), ("taylor", taylorize(network))):
        model.save_pretrained(tmp_path / name)
        command = [
            "upscale",
            str(tmp_path / "in.png"),
            str(tmp_path / "out.png"),
            "--quiet",
            "--device",
            "cpu",
        ]
        with pytest.raises(SystemExit) as ended:
            main([*command, "--model", str(tmp_path / name)])
        assert ended.value.code == 0
        expected = super_resolve(load_any(tmp_path / name), noise(9, 13, 3))
        assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), expected)


def test_what_was_not_converted_is_refused(network, tmp_path):
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a network that was not converted"):
        load_converted(tmp_path)
