"""The table of variants, build_model, and the configuration."""

import dataclasses

import pytest
import torch

from taylorir.networks.conversion import taylorize
from taylorir.networks.swinir import SwinIR
from taylorir.networks.taylorswinir import TaylorSwinIR
from taylorir.networks.variants import (
    VARIANTS,
    ModelConfig,
    build_from_config,
    build_model,
    config_from_json,
    config_to_json,
)


def test_names():
    promised = {
        f"{kind}_{size}_x{scale}"
        for kind in ("swinir", "taylorswinir")
        for size in "sm"
        for scale in (2, 3, 4)
    }
    assert promised | {"swinir_m_x8", "swinir_tiny_x2", "taylorswinir_tiny_x2"} <= VARIANTS.keys()
    for name, config in VARIANTS.items():
        assert name.endswith(f"_x{config.upscale}") or (config.upscale == 1 and "_x" not in name)
        assert config.attention == ("taylor" if name.startswith("taylor") else "softmax")
        small, large = (7, 49) if "jpeg" in name else (8, 16 if "tiny" in name else 48)
        assert config.window_size == (small if config.attention == "softmax" else large)
        assert config.in_chans == (1 if name.endswith("_gray") else 3)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("taylor")])
def test_a_taylor_variant_differs_in_attention_alone(name):
    with torch.device("meta"):
        taylor, softmax = build_model(name), build_model(name.removeprefix("taylor"))
    ours, theirs = ({key: p.shape for key, p in m.named_parameters()} for m in (taylor, softmax))
    depths = enumerate(taylor.config.depths)
    blocks = [f"layers.{i}.residual_group.blocks.{j}.attn." for i, depth in depths for j in range(depth)]
    assert ours.keys() - theirs.keys() == {f"{block}temperature" for block in blocks}
    assert theirs.keys() - ours.keys() == {f"{block}relative_position_bias_table" for block in blocks}
    assert all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())
    assert taylorize(softmax, window_size=taylor.config.window_size).config == taylor.config


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("taylorswinir_real_l_x4", (68, 20)),
        ("taylorswinir_denoise_gray", (17, 5)),
        ("taylorswinir_jpeg_color", (17, 5)),
    ],
)
def test_the_twins_of_other_tasks_train_in_all_their_parts(name, size):
    torch.manual_seed(0)
    model = build_model(name, embed_dim=12, depths=[2], num_heads=2, window_size=4, drop_path_rate=0.0)
    y = model(torch.rand(1, model.config.in_chans, 17, 5))
    assert y.shape == (1, model.config.in_chans, *size)
    y.square().sum().backward()
    assert [key for key, p in model.named_parameters() if not p.grad.any()] == []


def test_without_an_upsampler_the_network_adds_to_its_input():
    model = build_model("swinir_jpeg_color", embed_dim=12, depths=[2], num_heads=2)
    torch.nn.init.zeros_(model.conv_last.weight)
    torch.nn.init.constant_(model.conv_last.bias, 25.5)
    image = torch.rand(1, 3, 9, 6)
    torch.testing.assert_close(model(image), image + 0.1)  # 25.5 of img_range 255


@pytest.mark.parametrize("name", ["swinir_tiny_x2", "taylorswinir_tiny_x2"])
def test_model_has_its_configuration_and_class(name):
    model = build_model(name, upscale=3)
    assert model.config == dataclasses.replace(VARIANTS[name], upscale=3)
    assert type(model) is (TaylorSwinIR if name.startswith("taylor") else SwinIR)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 7, 5)).shape == (1, 3, 21, 15)


def test_overrides():
    config = build_model(
        "taylorswinir_tiny_x2", window_size=12, patch_size=2, num_heads=[2, 4], position="lepe", shift=False
    ).config
    assert (config.window_size, config.patch_size, config.num_heads) == (12, 2, (2, 4))
    assert (config.position, config.shift) == ("lepe", False)


def test_switching_the_attention_switches_the_position():
    assert build_model("swinir_tiny_x2", attention="taylor").config.position == "none"
    assert build_model("taylorswinir_tiny_x2", attention="softmax").config.position == "bias"
    assert build_model("taylorswinir_tiny_x2", attention="softmax", position="lepe").config.position == "lepe"


def test_depths_may_change_without_naming_the_heads_again():
    assert build_model("swinir_tiny_x2", depths=[1, 2, 1]).config.num_heads == (3, 3, 3)


def test_without_stages_the_network_is_a_linear_filter_of_three_convolutions():
    model = build_model("swinir_tiny_x2", depths=()).eval()
    # 3 to 24 channels, 24 to 24, 24 to 3 x 2 x 2; each output channel reads 3 x 3 pixels and has a bias
    assert sum(p.numel() for p in model.parameters()) == 24 * 28 + 24 * (24 * 9 + 1) + 12 * (24 * 9 + 1)
    assert config_from_json(config_to_json(model.config)) == model.config
    a, b = torch.rand(2, 1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model((a + 3 * b) / 4), (model(a) + 3 * model(b)) / 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"windows_size": 8}, "unknown model setting 'windows_size'; allowed: upscale, embed_dim, depths"),
        ({"num_heads": 7}, "num_heads must divide embed_dim = 24, got 7"),
        (
            {"num_heads": [3]},
            r"num_heads must be one number, or one for each of the 2 stages of depths, got \(3,\)",
        ),
        ({"num_heads": 0}, "num_heads must be a positive whole number, got 0"),
        ({"depths": 6}, "depths must be a list of whole numbers, got 6"),
        ({"num_heads": 2.0}, "num_heads must be a whole number or a list of them, got 2.0"),
        ({"window_size": 8.0}, "window_size must be a positive whole number, got 8.0"),
        ({"upscale": 5}, "upscale must be one of 1, 2, 3, 4, 8, got 5"),
        ({"upsampler": ""}, "upscale must be 1 with upsampler '', got 2"),
        (
            {"upscale": 3, "upsampler": "nearest+conv"},
            r"upscale must be 2 or 4 with upsampler 'nearest\+conv', got 3",
        ),
        ({"in_chans": 4}, "in_chans must be one of 3, 1, got 4"),
        ({"resi_connection": "2conv"}, "resi_connection must be one of '1conv', '3conv', got '2conv'"),
        ({"patch_size": 3}, "patch_size must be one of 1, 2, 4, 8, got 3"),
        ({"attention": "linear"}, "attention must be one of 'softmax', 'taylor', got 'linear'"),
        ({"attention": "taylor", "position": "bias"}, "position 'bias' adds to the scores"),
        ({"softmax_backend": "flash"}, "softmax_backend 'flash' takes no bias"),
        ({"drop_path_rate": 1.5}, r"drop_path_rate must be a number in \[0, 1\], got 1.5"),
        ({"shift": 1}, "shift must be one of True, False, got 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model("swinir_tiny_x2", **overrides)
    assert "\n" not in str(caught.value)


def test_unknown_models_are_refused_with_close_names():
    with pytest.raises(ValueError, match=r"unknown model 'swinir_s_x5'; did you mean swinir_s_x"):
        build_model("swinir_s_x5")


def test_configuration_is_frozen_and_survives_json():
    config = dataclasses.replace(VARIANTS["taylorswinir_m_x3"], num_heads=10, drop_path_rate=0.25)
    assert config_from_json(config_to_json(config)) == config
    assert build_from_config(VARIANTS["swinir_tiny_x2"]).config is VARIANTS["swinir_tiny_x2"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.upscale = 2
    with pytest.raises(ValueError, match="unknown model setting 'colour'"):
        config_from_json('{"colour": 3}')
    with pytest.raises(ValueError, match="must be a JSON object, got list"):
        config_from_json("[]")
    assert isinstance(config, ModelConfig)
