"""Rows of diffusion indices: crops by rule, networks by name, nothing measured twice."""

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from taylorir.attribution import rows as rows_module
from taylorir.attribution.maps import (
    centre_patch,
    effective_receptive_field,
    field_width,
    local_attribution,
)
from taylorir.attribution.rows import (
    attribution_rows,
    describe_network,
    detailed_crops,
    named_networks,
    untrained_network,
)
from taylorir.datasets.sets import NamedImage
from taylorir.images.pixels import to_tensor
from taylorir.images.resize import imresize
from taylorir.networks.variants import build_model
from taylorir.networks.weights import weights_digest
from taylorir.rows.committed import read_rows


def images() -> list[NamedImage]:
    """Noise in the middle of two squares of 32, more of it at the lower right; and an image too small."""
    noise = np.random.default_rng(0)
    image = np.full((70, 70, 3), 128, dtype=np.uint8)
    image[8:24, 8:24] += noise.integers(0, 20, (16, 16, 3), dtype=np.uint8)
    image[40:56, 40:56] += noise.integers(0, 90, (16, 16, 3), dtype=np.uint8)
    return [NamedImage("two", image), NamedImage("small", image[:31])]


def test_crops_are_those_with_most_detail():
    crops = list(detailed_crops(images(), lr_size=16, upscale=2, per_image=2))
    assert [(crop.image, crop.top, crop.left) for crop in crops] == [("two", 32, 32), ("two", 0, 0)]
    np.testing.assert_array_equal(crops[0].hr, images()[0].image[32:64, 32:64])
    np.testing.assert_array_equal(crops[0].lr, imresize(crops[0].hr, 0.5))
    assert len(list(detailed_crops(images(), lr_size=16, upscale=2))) == 1


def test_rows_measure_and_resume():
    crops = list(detailed_crops(images(), lr_size=16, upscale=2, per_image=2))
    networks = named_networks(["untrained_softmax_w8", "untrained_taylor_w8"])
    settings = {"fold": 2, "rule": "midpoint", "patch_size": 8}
    rows = pd.DataFrame(attribution_rows(networks, crops, **settings))
    assert rows.network.tolist() == 2 * ["untrained_softmax_w8"] + 2 * ["untrained_taylor_w8"]
    assert rows.attention.tolist() == ["softmax", "softmax", "taylor", "taylor"] and not rows.trained.any()
    network = networks["untrained_taylor_w8"]
    again = local_attribution(
        network, to_tensor(crops[1].lr), centre_patch(16, 16, 2, 8), fold=2, rule="midpoint"
    )
    assert rows.diffusion_index[3] == pytest.approx(again.diffusion_index, rel=1e-4)
    assert rows.field_width[3] == field_width(effective_receptive_field(network, to_tensor(crops[1].lr)))
    assert rows.weights.nunique() == 2
    assert not list(attribution_rows(networks, crops, **settings, known=rows))
    left = pd.DataFrame(attribution_rows(networks, crops, **settings, known=rows.drop(index=2)))
    assert left.diffusion_index.tolist() == [rows.diffusion_index[2]]


def test_untrained_networks_share_their_weights():
    one, other = (untrained_network("untrained_softmax_w8", seed=seed) for seed in (1, 2))
    assert (one.conv_first.weight != other.conv_first.weight).any()
    common = dict(one.named_parameters())
    for name in rows_module.UNTRAINED:
        parameters = dict(untrained_network(name, seed=1).named_parameters())
        assert {key for key in parameters if "temperature" not in key} == set(common)
        for key in common:
            assert torch.equal(parameters[key], common[key]), (name, key)


def test_a_network_without_a_transformer_has_no_attention():
    linear = build_model("swinir_tiny_x2", depths=(), num_heads=())
    assert describe_network("linear", linear)["attention"] == "none"
    softmax = describe_network("untrained_softmax_w8", untrained_network("untrained_softmax_w8"))
    assert (softmax["attention"], softmax["window_size"], softmax["trained"]) == ("softmax", 8, False)


def test_digest_tells_weights_apart():
    model = untrained_network("untrained_softmax_w8")
    before = weights_digest(model)
    assert len(before) == 10 and before == weights_digest(untrained_network("untrained_softmax_w48"))
    with torch.no_grad():
        model.conv_first.bias[0] += 1e-6
    assert weights_digest(model) != before


def test_names():
    assert list(named_networks(["untrained"])) == list(rows_module.UNTRAINED)
    with pytest.raises(ValueError, match="unknown model 'bicubic'; give a variant or a checkpoint"):
        named_networks(["bicubic"])
    with pytest.raises(ValueError, match="unknown untrained network 'untrained_w7'"):
        named_networks(["untrained_w7"])


def test_command_adds_rows(tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    numbered = [NamedImage("101085", images()[0].image)]  # a name that a CSV reader takes for a number
    monkeypatch.setattr(rows_module, "load_images", lambda name, root: numbered)
    app = rows_module.typer.Typer()
    app.command()(rows_module._main)
    arguments = [
        "untrained_softmax_w8",
        "--out",
        str(out),
        "--lr-size",
        "16",
        "--fold",
        "1",
        "--per-image",
        "2",
    ]
    for patches, expected in ((1, 1), (2, 2), (2, 2)):
        result = CliRunner().invoke(app, [*arguments, "--patches", str(patches)])
        assert result.exit_code == 0, result.output
        assert len(pd.read_csv(out)) == expected
        assert pd.read_csv(out)["window_size"].dtype.kind == "i"  # else labels say "w8.0"
    pd.read_csv(out).assign(weights=["other", "other"]).to_csv(out, index=False)
    assert CliRunner().invoke(app, [*arguments, "--patches", "1"]).exit_code == 0
    rows = pd.read_csv(out)  # the rows of other weights are gone
    assert rows.weights.tolist() == [weights_digest(untrained_network("untrained_softmax_w8"))]


def test_stored_rows_belong_to_the_stored_weights():
    rows = read_rows("attribution.csv")
    for name, weights in rows.groupby("network").weights:
        (network,) = named_networks([name]).values()
        assert set(weights) == {weights_digest(network)}, f"{name}: its rows are of other weights"
