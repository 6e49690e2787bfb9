"""SwinIR against the official network, and its parts against their definitions."""

import json
import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode

from taylorir.networks import windows
from taylorir.networks.checkpoint import load_checkpoint
from taylorir.networks.original import as_in_original
from taylorir.networks.released import infer_config
from taylorir.networks.swinir import PatchEmbed, PatchUnembed, SwinIR, SwinTransformerBlock
from taylorir.networks.variants import VARIANTS, build_model

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = {
    name: official
    for file in ("swinir.json", "swinir_families.json")
    for name, official in json.loads((GOLDEN / file).read_text()).items()
}
BUFFERS = ("relative_position_index", "attn_mask")


def golden_weights(shapes):
    """The weights that the golden outputs were made with, as their README defines them."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(BUFFERS):
            continue
        seed = zlib.crc32(name.encode()) % 2**32
        value = np.random.RandomState(seed).standard_normal(shape).astype("float32") * 0.05
        weights[name] = torch.from_numpy(value.astype("float32"))
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            weights[name] += 1
    return weights


def tiny(**overrides):
    torch.manual_seed(0)
    settings = {"embed_dim": 12, "num_heads": 2, "window_size": 4, "img_size": 16, "drop_path_rate": 0.0}
    model = build_model("swinir_tiny_x2", **(settings | overrides))
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "naive") for name in OFFICIAL), ("swinir_s_x3", "fused"), ("swinir_m_x4", "fused")],
)
def test_golden_outputs(name, backend):
    model = build_model(name, softmax_backend=backend).eval()
    official = OFFICIAL[name]
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert own == official["state_dict"]
    assert list(own) == list(official["state_dict"])
    assert sum(parameter.numel() for parameter in model.parameters()) == official["num_parameters"]

    buffers = {key: value for key, value in model.state_dict().items() if key.endswith(BUFFERS)}
    model.load_state_dict(golden_weights(official["state_dict"]) | buffers, strict=True)
    golden = load_file(GOLDEN / f"{name}.safetensors")
    with torch.no_grad():
        single = model(golden["input"])
        double = model.double()(golden["input"].double())
    assert (single - golden["output"]).abs().max() < 1e-4
    assert ((double - golden["output"]).abs() / golden["output"].abs()).max() < 1e-6


def test_patch_size_one_is_swinir_bit_for_bit():
    """Nothing but flatten and norm, and back, as in SwinIR; the golden outputs show the rest."""
    model = build_model("swinir_s_x2", patch_size=1).eval()
    weights = golden_weights(OFFICIAL["swinir_s_x2"]["state_dict"])
    model.load_state_dict(weights, strict=True)
    norm = [weights[f"patch_embed.norm.{name}"] for name in ("weight", "bias")]
    with torch.no_grad():
        x = model.conv_first(torch.rand(1, 3, 8, 16))
        tokens = torch.nn.functional.layer_norm(x.flatten(2).transpose(1, 2), (60,), *norm)
        assert torch.equal(model.patch_embed(x).flatten(1, 2), tokens)
        assert torch.equal(
            model.patch_unembed(tokens.unflatten(1, (8, 16))).flatten(2), tokens.transpose(1, 2)
        )
    assert sum(name.startswith("patch_") for name in model.state_dict()) == len(norm)


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("swinir_m_x2", {}, 11_752_487),
        ("swinir_m_x3", {}, 11_937_127),
        ("swinir_m_x4", {}, 11_900_199),
        ("swinir_m_x8", {}, 12_047_911),
        ("swinir_s_x2", {}, 910_152),
        ("swinir_s_x3", {}, 918_267),
        ("swinir_s_x4", {}, 929_628),
        ("swinir_s_x2", {"position": "none"}, 877_752),
        ("swinir_s_x3", {"position": "none"}, 885_867),
        ("swinir_s_x4", {"position": "none"}, 897_228),
        ("swinir_m_x2", {"window_size": 48}, 13_653_287),
        ("taylorswinir_m_x2", {}, 11_703_887 + 216),
    ],
)
def test_parameter_counts(name, overrides, count):
    with torch.device("meta"):
        model = build_model(name, **overrides)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_linear_layers_begin_small_and_without_bias():
    """As in the authors' code: a normal distribution of 0.02; PyTorch's own is uniform within 0.13 here."""
    torch.manual_seed(0)
    model = build_model("swinir_s_x2", depths=(2,))
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.cat([module.weight.detach().flatten() for module in linear])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert float((weights.abs() > 0.04).float().mean()) == pytest.approx(0.0455, rel=0.05)
    assert not any(module.bias.any() for module in linear)


def test_the_original_holds_its_masks_for_one_size(monkeypatch):
    model = as_in_original(tiny(depths=(2,)), 16)
    plain, shifted = (block.attn for block in model.layers[0].residual_group.blocks)
    assert plain.attn_mask is None
    allowed = windows.window_mask(16, 16, 4, 2, torch.device("cpu"))
    assert torch.equal(shifted.attn_mask, torch.where(allowed, 0.0, -100.0))
    made = []
    monkeypatch.setattr(type(plain), "_mask", lambda self, *size: made.append(size))
    with torch.no_grad():
        model(torch.rand(1, 3, 16, 16))
        assert made == []
        model(torch.rand(1, 3, 16, 12))
        assert made == [(16, 12)] * 2  # in the block that does not shift as well, as the authors' code does


@pytest.mark.parametrize("overrides", [{"attention": "taylor"}, {"position": "none"}])
def test_the_original_has_softmax_and_a_bias(overrides):
    with pytest.raises(ValueError, match="the original network has softmax attention with position 'bias'"):
        as_in_original(tiny(**overrides), 16)


def test_memory_of_index_and_masks_at_window_48():
    with torch.device("meta"):
        model = build_model("swinir_m_x2", window_size=48)
    extra = [value for key, value in model.state_dict().items() if key not in dict(model.named_parameters())]
    assert sum(value.nbytes for value in [*model.buffers(), *extra]) < 2**10

    geometry = (windows.kept_regions, windows.window_mask, windows.relative_offsets)
    for function in geometry:
        function.kept.clear()
    settings = {"window_size": 48, "depths": (2,), "embed_dim": 6, "softmax_backend": "naive"}
    small = build_model("swinir_m_x2", **settings).eval()
    with torch.no_grad():
        small(torch.rand(1, 3, 64, 40))
    kept = [tensor for function in geometry for tensor in function.kept.values()]
    assert len(windows.window_mask.kept) == 1
    assert 2**20 < sum(tensor.nbytes for tensor in kept) < 50 * 2**20


def test_geometry_survives_inference_mode_and_fake_tensors():
    model = tiny()
    for function in (windows.kept_regions, windows.window_mask, windows.relative_offsets):
        function.kept.clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.rand(1, 3, 20, 12))
    with torch.inference_mode():
        model(torch.rand(1, 3, 20, 12))
    model(torch.rand(1, 3, 20, 12)).sum().backward()
    assert model.conv_first.weight.grad.isfinite().all()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("size", [(13, 6), (17, 19)], ids=["few windows", "many windows"])
@pytest.mark.parametrize(
    ("backend", "position"),
    [
        *(("fused", position) for position in ("bias", "none", "rope", "lepe", "rib")),
        *(("sdpa", position) for position in ("bias", "none")),
        *(("flash", position) for position in ("none", "rib")),
    ],
)
def test_softmax_backends_agree_in_outputs_and_gradients(backend, position, size, shift):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    results = []
    for name in ("naive", backend):
        model = tiny(softmax_backend=name, position=position, shift=shift).double()
        y = model(x)
        (y**2).sum().backward()
        results.append([y.detach(), *(parameter.grad for parameter in model.parameters())])
    for naive, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, naive, rtol=1e-10, atol=1e-12)


def test_shift_moves_information_between_windows():
    for shift, reaches in ((True, True), (False, False)):
        model = tiny(shift=shift, depths=(2,)).double()
        blocks = model.layers[0].residual_group
        x = torch.randn(1, 8, 8, 12, dtype=torch.float64, requires_grad=True)
        blocks(x)[0, 3, 3].sum().backward()
        assert bool(x.grad[0, 4:, 4:].any()) is reaches
        assert x.grad[0, :4, :4].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (25, 3), (17, 9)])
@pytest.mark.parametrize(("name", "upscale"), [("swinir_tiny_x2", 3), ("swinir_m_x8", 8)])
def test_images_of_any_size(name, upscale, size):
    settings = {"embed_dim": 12, "depths": (2,), "num_heads": 2, "window_size": 8}
    model = build_model(name, upscale=upscale, **settings).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, 3, upscale * size[0], upscale * size[1])


def test_window_48_with_crops_of_64():
    model = build_model("swinir_tiny_x2", window_size=48, depths=(2,), embed_dim=4, num_heads=1, img_size=64)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3, 128, 128)
    assert not any(key.endswith(BUFFERS) for key in model.state_dict())


def test_patch_projection_and_its_inverse_address_the_same_pixels():
    config = tiny(patch_size=2, embed_dim=4).config
    embed, unembed = PatchEmbed(config), PatchUnembed(config)
    embed.norm = torch.nn.Identity()
    torch.nn.init.zeros_(embed.proj.weight)
    torch.nn.init.zeros_(unembed.proj.weight)
    torch.nn.init.zeros_(embed.proj.bias)
    torch.nn.init.zeros_(unembed.proj.bias)
    with torch.no_grad():
        for pixel in range(4):  # token channel 2 y + x holds pixel (y, x) of image channel 0
            embed.proj.weight[pixel, 0, pixel // 2, pixel % 2] = 1
            unembed.proj.weight[pixel, pixel] = 1
    image = torch.randn(1, 4, 6, 10)
    tokens = embed(image)
    assert tokens.shape == (1, 3, 5, 4)
    assert torch.equal(unembed(tokens)[:, 0], image[:, 0])


@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_patches_run_and_train_on_any_size(patch_size):
    model = tiny(patch_size=patch_size)
    y = model(torch.rand(1, 3, 19, 37))
    assert y.shape == (1, 3, 38, 74)
    y.sum().backward()
    for weight in (model.patch_embed.proj.weight, model.patch_unembed.proj.weight):
        assert weight.grad.abs().min() > 0


@pytest.mark.parametrize("level", [None, "params", "params_ema"])
def test_released_files_load(level, tmp_path):
    model = tiny().eval()
    state = model.state_dict()
    assert any(key.endswith("attn_mask") for key in state)
    path = tmp_path / "weights.pth"
    torch.save(state if level is None else {level: state}, path)
    loaded = load_checkpoint(path)
    assert loaded.config == model.config.__class__(**(vars(model.config) | {"drop_path_rate": 0.1}))
    x = torch.rand(1, 3, 9, 5)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    other = tiny()
    other.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(other.conv_first.weight, model.conv_first.weight)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("swinir")])
def test_configuration_is_read_off_released_weights(name):
    with torch.device("meta"):
        model = build_model(name)
    assert infer_config(model.state_dict()) == VARIANTS[name]


def test_parameters_alone_load_and_buffers_of_other_windows_are_named_in_the_log(caplog):
    model, other = tiny(), tiny(img_size=32)
    with caplog.at_level(logging.WARNING, logger="taylorir.networks.swinir"):
        assert not other.load_state_dict(model.learned_state_dict()).missing_keys
        assert not caplog.records
        assert not other.load_state_dict(model.state_dict()).unexpected_keys
    assert [record.getMessage() for record in caplog.records] == [
        "ignored 2 buffers of another window, the first being layers.0.residual_group.blocks.1.attn_mask"
    ]
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def test_a_network_inside_another_module_loads_what_it_saved():
    saved = torch.nn.Sequential(tiny()).state_dict()
    assert any(key.endswith("attn_mask") for key in saved)
    for model in (tiny(img_size=32), build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=2)):
        result = torch.nn.Sequential(model).load_state_dict(saved, strict=False)
        assert not any(key.endswith(BUFFERS) for key in result.unexpected_keys)
    torch.nn.Sequential(tiny()).load_state_dict(saved, strict=True)


def test_files_that_are_no_swinir_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.pth"):
        load_checkpoint(tmp_path / "none.pth")
    path = tmp_path / "bad.pth"
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match="no weights file"):
        load_checkpoint(path)
    torch.save({"params": {"a": 1}}, path)
    with pytest.raises(ValueError, match="no state dict"):
        load_checkpoint(path)
    torch.save({"conv_first.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"lacks layers\.0"):
        load_checkpoint(path)
    torch.save({"conv_first.weight": torch.zeros(1), "absolute_pos_embed": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="an absolute position embedding, which is not built here"):
        load_checkpoint(path)


def test_stochastic_depth_rises_over_blocks_and_rests_in_evaluation():
    model = tiny(drop_path_rate=0.3)
    blocks = [module for module in model.modules() if isinstance(module, SwinTransformerBlock)]
    assert [block.drop_path for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    pair = tiny(drop_path_rate=0.3, depths=(2,)).layers[0].residual_group.blocks
    assert [block.drop_path for block in pair] == [0, 0.3]
    block = blocks[-1]
    x = torch.rand(400, 4, 4, 12)
    untouched = (block.train()(x) == x).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.3**2, abs=0.05)  # both branches dropped
    assert not (block.eval()(x) == x).flatten(1).all(1).any()
    kept = block.train()._drop(torch.ones(400, 1, 1, 1)).unique()
    torch.testing.assert_close(kept, torch.tensor([0, 1 / 0.7]))  # the mean stays
    block.drop_path = 1.0
    assert torch.equal(block.train()(x), x)


def test_checkpointing_changes_no_gradient():
    x = torch.rand(1, 3, 8, 8)
    gradients = []
    for use_checkpoint in (False, True):
        model = tiny(use_checkpoint=use_checkpoint)
        model(x).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)])
def test_inputs_that_are_no_rgb_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"the input must be \[B, 3, H, W\]"):
        tiny()(torch.zeros(shape))


def test_a_grey_network_refuses_colour():
    with pytest.raises(ValueError, match=r"must be \[B, 1, H, W\] with .* got \[1, 3, 8, 8\]"):
        tiny(in_chans=1)(torch.zeros(1, 3, 8, 8))


def test_class_and_configuration_must_agree():
    with pytest.raises(ValueError, match="SwinIR has attention 'softmax', the config 'taylor'"):
        SwinIR(VARIANTS["taylorswinir_tiny_x2"])
