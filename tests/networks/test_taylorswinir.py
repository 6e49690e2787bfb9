"""TaylorSwinIR against explicit masks and the definitions of its parts."""

import pytest
import torch
from torch import nn

from taylorir.attention import taylor_direct, taylor_efficient
from taylorir.networks.taylorswinir import TaylorWindowAttention
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


@pytest.mark.parametrize("position", ["rope", "lepe", "rib"])
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


@pytest.mark.parametrize("position", ["rope", "lepe", "rib"])
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


def test_scaled_output_is_scaled_by_tokens_over_width():
    q, k, v = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(
        taylor_efficient(q, k, v, scale_output=True), taylor_efficient(q, k, v) * (9 / 4) ** 0.5
    )
    plain, scaled = (tiny(scale_output=flag, depths=(1,)).double() for flag in (False, True))
    attention = [model.layers[0].residual_group.blocks[0].attn for model in (plain, scaled)]
    x = torch.randn(1, 6, 6, 12, dtype=torch.float64)
    torch.testing.assert_close(attention[1].attend(x), attention[0].attend(x) * (36 / 6) ** 0.5)
