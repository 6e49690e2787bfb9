"""TaylorSwinIR against explicit masks and the definitions of its parts, and taylorize."""

import copy

import pytest
import torch
from torch import nn

from taylorir.attention import taylor_direct, taylor_efficient
from taylorir.networks.taylorswinir import TaylorSwinIR, TaylorWindowAttention, taylorize
from taylorir.networks.variants import build_model
from taylorir.networks.windows import merge, partition


def tiny(**overrides):
    torch.manual_seed(0)
    settings = {"embed_dim": 12, "num_heads": 2, "window_size": 6, "drop_path_rate": 0.0}
    model = build_model("taylorswinir_tiny_x2", **(settings | overrides))
    for name, parameter in model.named_parameters():
        if name.endswith("temperature"):
            nn.init.uniform_(parameter, 0.5, 2.0)
        elif name.endswith("qkv.weight"):
            nn.init.normal_(parameter)
    return model


def shifted_window_attention_by_definition(attention, x):
    """One window at a time on the image itself: no roll, no regions; by the direct form."""
    window, shift = attention.window_size, attention.shift_size
    height, width, channels = x.shape[1:]
    q, k, v = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(3)
    y = torch.empty_like(q)
    for top in range(shift - window if shift else 0, height, window):
        for left in range(shift - window if shift else 0, width, window):
            cell = (
                slice(None),
                slice(max(top, 0), top + window),
                slice(max(left, 0), left + window),
            )
            tokens = [part[cell].flatten(1, 2).transpose(1, 2) for part in (q, k, v)]
            out = taylor_direct(*tokens, temperature=attention.temperature)
            y[cell] = out.transpose(1, 2).reshape(q[cell].shape)
    return attention.proj(y.reshape(*x.shape[:3], channels))


@pytest.mark.parametrize("form", ["auto", "direct", "efficient", "published"])
@pytest.mark.parametrize(
    ("window", "size"), [(4, (8, 12)), (6, (6, 6)), (5, (10, 15))], ids=["4", "one window", "odd"]
)
def test_shifted_windows_by_definition(form, window, size):
    for shift in (0, window // 2):
        config = tiny(window_size=window, attention_form=form).config
        attention = TaylorWindowAttention(config, 2, shift).double()
        nn.init.uniform_(attention.temperature, 0.5, 2.0)
        nn.init.normal_(attention.qkv.weight)
        x = torch.randn(2, *size, 12, dtype=torch.float64, requires_grad=True)
        y, expected = attention(x), shifted_window_attention_by_definition(attention, x)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        seed = torch.randn_like(y)
        inputs = [x, *attention.parameters()]
        for found, wanted in zip(
            torch.autograd.grad(y, inputs, seed), torch.autograd.grad(expected, inputs, seed), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["auto", "efficient", "published"])
@pytest.mark.parametrize(("window", "size"), [(8, (37, 50)), (48, (64, 64))])
def test_network_by_regions_equals_network_by_masks(form, window, size):
    x = torch.rand(1, 3, *size)
    outputs = []
    for attention_form in (form, "direct"):  # "direct" takes boolean masks
        model = tiny(window_size=window, attention_form=attention_form, depths=(2,), num_heads=1, embed_dim=6)
        with torch.no_grad():
            outputs.append(model.eval()(x))
    assert outputs[1].abs().max() > 0.1
    assert (outputs[0] - outputs[1]).abs().max() < 1e-5


def test_an_exported_attention_keeps_shifted_windows_apart():
    attention = TaylorWindowAttention(tiny(window_size=4, attention_form="efficient").config, 2, 2).eval()
    nn.init.normal_(attention.qkv.weight)
    x = torch.randn(1, 8, 4, 12)
    with torch.no_grad():
        exported = torch.export.export(attention, (x,)).module()
        torch.testing.assert_close(exported(x), attention(x))


def test_no_information_crosses_the_border_of_a_rolled_image():
    attention = TaylorWindowAttention(tiny(window_size=4).config, 2, 2).double()
    x = torch.randn(1, 8, 8, 12, dtype=torch.float64, requires_grad=True)
    attention(x)[0, 0, 0].sum().backward()
    assert x.grad[0, :2, :2].abs().min() > 0
    x.grad[0, :2, :2] = 0
    assert not x.grad.any()


@pytest.mark.parametrize("window", [8, 16, 24, 32, 48, 64, 96])
def test_windows_from_8_to_96(window):
    model = tiny(window_size=window, depths=(2,), embed_dim=8, num_heads=4).eval()
    with torch.no_grad():
        y = model(torch.rand(1, 3, 40, 72))
    assert y.shape == (1, 3, 80, 144)
    assert y.isfinite().all()


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 12])
def test_any_number_of_heads_each_with_its_temperature(heads):
    model = build_model("taylorswinir_tiny_x2", embed_dim=12, num_heads=heads, window_size=4).eval()
    temperatures = [parameter for name, parameter in model.named_parameters() if name.endswith("temperature")]
    assert len(temperatures) == 4
    model(torch.rand(1, 3, 5, 9)).sum().backward()
    for temperature in temperatures:
        assert torch.equal(temperature.detach(), torch.ones(heads))
        if heads < 12:  # at d = 1 unit vectors are signs
            assert temperature.grad.abs().min() > 0


@pytest.mark.parametrize("position", ["rope", "lepe"])
def test_positions_break_the_symmetry_under_permutations(position):
    """Without a position, permuting the tokens of a window permutes the outputs; with one it does not."""
    x = torch.randn(1, 4, 4, 12, dtype=torch.float64)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = merge(partition(x, 4, 4)[:, :, order], 4, 4, 4, 4)
    for name, symmetric in (("none", True), (position, False)):
        torch.manual_seed(0)
        attention = TaylorWindowAttention(
            tiny(window_size=4, position=name, num_heads=3).config, 3, 0
        ).double()
        nn.init.normal_(attention.qkv.weight)
        y, y_shuffled = partition(attention(x), 4, 4)[:, :, order], partition(attention(shuffled), 4, 4)
        assert torch.allclose(y, y_shuffled, atol=1e-12) is symmetric


@pytest.mark.parametrize("position", ["rope", "lepe"])
@pytest.mark.parametrize("attention", ["softmax", "taylor"])
def test_positions_do_not_depend_on_how_shifted_windows_are_cut(position, attention):
    """By masks or by rectangles, by regions or by masks: the same output."""
    forms = [{"softmax_backend": name} for name in ("naive", "fused")]
    if attention == "taylor":
        forms = [{"attention_form": name} for name in ("efficient", "direct")]
    outputs = []
    for form in forms:
        model = tiny(window_size=4, position=position, attention=attention, num_heads=3, **form).double()
        with torch.no_grad():
            outputs.append(
                model.eval()(torch.rand(1, 3, 12, 9, generator=torch.Generator().manual_seed(0)).double())
            )
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)


def test_taylorize_keeps_every_weight_but_the_position_bias():
    torch.manual_seed(0)
    model = build_model("swinir_tiny_x2", upscale=3)
    before = copy.deepcopy(model.learned_state_dict())
    taylor = taylorize(model)
    assert isinstance(taylor, TaylorSwinIR)
    assert (taylor.config.attention, taylor.config.window_size, taylor.config.upscale) == ("taylor", 8, 3)
    after = taylor.learned_state_dict()
    for name, value in before.items():
        assert torch.equal(value, model.learned_state_dict()[name])
        if not name.endswith("relative_position_bias_table"):
            assert torch.equal(after.pop(name), value)
    assert after and all(name.endswith("attn.temperature") for name in after)
    assert all(value.eq(1).all() for value in after.values())


def test_taylorized_swinir_round_trip(tmp_path):
    model = build_model("swinir_tiny_x2").eval()
    taylor = taylorize(model, window_size=24, position="lepe", temperature=2.5)
    assert not taylor.training
    assert taylor.config.window_size == 24
    x = torch.rand(1, 3, 25, 31)
    taylor(x).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in taylor.parameters())
    torch.save(taylor.state_dict(), tmp_path / "taylor.pth")
    loaded = taylorize(build_model("swinir_tiny_x2").eval(), window_size=24, position="lepe")
    loaded.load_state_dict(torch.load(tmp_path / "taylor.pth", weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(loaded(x), taylor(x))
        assert not torch.allclose(taylor(x), model(x), atol=1e-6)
    again = taylorize(taylor)
    assert again.config == taylor.config
    for name, value in taylor.learned_state_dict().items():
        assert torch.equal(again.learned_state_dict()[name], value)


@pytest.fixture
def swin2sr():
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    torch.manual_seed(0)
    config = transformers.Swin2SRConfig(
        embed_dim=12,
        depths=[2],
        num_heads=[2],
        window_size=4,
        image_size=16,
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    return transformers.Swin2SRForImageSuperResolution(config).eval()


@pytest.mark.parametrize("window_size", [None, 8])
def test_taylorized_swin2sr_round_trip(swin2sr, window_size, tmp_path):
    x = torch.rand(1, 3, 16, 8)
    before = copy.deepcopy(swin2sr.state_dict())
    taylor = taylorize(swin2sr, window_size=window_size)
    assert type(taylor) is type(swin2sr)
    assert all(torch.equal(value, before[name]) for name, value in swin2sr.state_dict().items())
    for name, value in taylor.state_dict().items():
        assert torch.equal(value, before[name]) if name in before else name.endswith("self.temperature")
    dropped = before.keys() - taylor.state_dict().keys()
    assert all("continuous_position_bias_mlp" in name or "logit_scale" in name for name in dropped)

    y = taylor(x).reconstruction
    assert y.shape == (1, 3, 32, 16)
    y.square().mean().backward()
    assert all(p.grad.isfinite().all() for name, p in taylor.named_parameters() if "self." in name)
    torch.save(taylor.state_dict(), tmp_path / "taylor.pth")
    loaded = taylorize(type(swin2sr)(swin2sr.config).eval(), window_size=window_size)
    loaded.load_state_dict(torch.load(tmp_path / "taylor.pth", weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(loaded(x).reconstruction, taylor(x).reconstruction)


def test_taylorized_swin2sr_attention_reads_the_mask_as_regions(swin2sr):
    layer = swin2sr.swin2sr.encoder.stages[0].layers[1]
    assert layer.shift_size == 2
    mask = layer.get_attn_mask(8, 12, torch.float32)
    attention = taylorize(swin2sr, temperature=1.5).swin2sr.encoder.stages[0].layers[1].attention.self
    tokens = torch.randn(12, 16, 12)  # 2 images of 6 windows
    q, k, v = (
        getattr(attention, name)(tokens).unflatten(-1, (2, 6)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    expected = taylor_direct(q, k, v, temperature=1.5, mask=(mask == 0).repeat(2, 1, 1)[:, None])
    (found,) = attention(tokens, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))
    with pytest.raises(ValueError, match="output_attentions must be False"):
        attention(tokens, mask, True)


class StrangeAttention(nn.Module):
    pass


def test_unknown_networks_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"cannot taylorize Sequential: .* its attention 1 \(StrangeAttention\)"
    ):
        taylorize(nn.Sequential(nn.Conv2d(3, 3, 3), StrangeAttention()))
    with pytest.raises(ValueError, match="cannot taylorize Conv2d: taylorize finds no attention in it"):
        taylorize(nn.Conv2d(3, 3, 3))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        taylorize("swinir_s_x2")


def test_scaled_output_is_scaled_by_tokens_over_width():
    q, k, v = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(
        taylor_efficient(q, k, v, scale_output=True), taylor_efficient(q, k, v) * (9 / 4) ** 0.5
    )
    plain, scaled = (tiny(scale_output=flag, depths=(1,)).double() for flag in (False, True))
    attention = [model.layers[0].residual_group.blocks[0].attn for model in (plain, scaled)]
    x = torch.randn(1, 6, 6, 12, dtype=torch.float64)
    torch.testing.assert_close(attention[1].attend(x), attention[0].attend(x) * (36 / 6) ** 0.5)
