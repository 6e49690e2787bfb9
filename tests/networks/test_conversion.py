"""taylorize keeps every weight, dtype, mode and frozen parameter of a network, its adapters included."""

import copy

import pytest
import torch
from torch import nn

from taylorir.networks.conversion import taylorize
from taylorir.networks.export import ExportableNetwork
from taylorir.networks.taylorswinir import TaylorSwinIR
from taylorir.networks.variants import build_model
from taylorir.networks.window_attention import WindowAttention
from tests.random_networks import stirred


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


class LowRank(nn.Module):
    """A linear layer with a correction of low rank beside it, as adapters are; it counts what it projects."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(2, linear.in_features) / 4)
        self.up = nn.Parameter(torch.randn(linear.out_features, 2) / 4)
        self.tokens = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tokens += x.shape[:-1].numel()
        return self.linear(x) + x @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        with torch.no_grad():
            self.linear.weight += self.up @ self.down
        return self.linear


def swap_projections(model, swap):
    for block in model.modules():
        if isinstance(block, WindowAttention):
            block.qkv = swap(block.qkv)
    return model


@pytest.mark.parametrize("backend", ["naive", "fused", "taylor", "exported"])
def test_adapters_take_part_and_each_token_is_projected_once(backend):
    """LePE convolves v, which is a part of what the projection gives: with its bias, and not made twice."""
    settings = {"attention": "taylor"} if backend == "taylor" else {"softmax_backend": backend}
    settings = {} if backend == "exported" else settings
    model = build_model("swinir_tiny_x2", position="lepe", depths=(2,), window_size=4, **settings).eval()
    model = swap_projections(stirred(model), LowRank)
    run = ExportableNetwork(model) if backend == "exported" else model
    adapters = [module for module in run.modules() if isinstance(module, LowRank)]
    image = torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        found = run(image)
        assert [adapter.tokens for adapter in adapters] == [2 * 8 * 12] * 2
        expected = swap_projections(model, LowRank.merged)(image)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for block in model.layers[0].residual_group.blocks:
            block.attn.qkv.bias[48:].zero_()
        assert (model(image) - found).abs().max() > 1e-2


def test_taylorize_keeps_adapters_and_what_may_be_trained():
    model = stirred(build_model("swinir_tiny_x2", position="lepe", window_size=4)).requires_grad_(False)
    model = swap_projections(model, LowRank)
    taylor = taylorize(model)
    trained = {name for name, parameter in taylor.named_parameters() if parameter.requires_grad}
    before = dict(model.named_parameters())
    assert {name for name in trained if name in before} == {n for n, p in before.items() if p.requires_grad}
    assert len(trained) == 3 * 4 and all(name.endswith(("up", "down", "temperature")) for name in trained)
    image = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        found = taylor.eval()(image)
        merged = taylorize(swap_projections(model, LowRank.merged)).eval()
        torch.testing.assert_close(found, merged(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_taylorize_keeps_dtype_device_and_mode(dtype):
    """A second position is new, and so has what its block has."""
    for position in ("none", "lepe"):
        model = build_model("swinir_tiny_x2").to("meta", dtype).eval()
        model.layers[1].residual_group.blocks[0].attn.train()
        model.conv_first.float()
        taylor = taylorize(model, position=position)
        modes = {name: module.training for name, module in model.named_modules()}
        for name, module in taylor.named_modules():
            assert module.training is modes.get(name, modes[name.partition(".lepe")[0]])
        assert {name for name, p in taylor.named_parameters() if p.dtype != dtype} == {
            "conv_first.weight",
            "conv_first.bias",
        }
        assert {p.device.type for p in [*taylor.parameters(), *taylor.buffers()]} == {"meta"}
        assert taylor.mean.dtype == dtype


def test_centred_keys_are_asked_for_once():
    taylor = taylorize(build_model("swinir_tiny_x2"), centre_keys=True)
    assert taylor.config.centre_keys and taylorize(taylor).config.centre_keys
    assert all(block.attn.centre_keys for layer in taylor.layers for block in layer.residual_group.blocks)
    assert not taylorize(build_model("swinir_tiny_x2")).config.centre_keys


def test_other_networks_are_sent_to_the_room_that_knows_them():
    with pytest.raises(
        ValueError, match=r"cannot taylorize Conv2d here: .* are for taylorir\.convert\.taylorize"
    ):
        taylorize(nn.Conv2d(3, 3, 3))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        taylorize("swinir_s_x2")


def test_rib_goes_along_into_a_larger_window_and_spans_it():
    """What is taylorized is what a network of its configuration is with the same weights."""
    model = stirred(build_model("swinir_tiny_x2", position="rib", depths=(2,))).eval()
    taylor = taylorize(model, window_size=24)
    kept, weights = model.learned_state_dict(), taylor.learned_state_dict()
    assert taylor.config.position == "rib"
    assert all(torch.equal(weights[name], value) for name, value in kept.items())
    loaded = build_model("taylorswinir_tiny_x2", position="rib", depths=(2,), window_size=24).eval()
    loaded.load_state_dict(taylor.state_dict())
    x = torch.rand(1, 3, 17, 30)
    with torch.no_grad():
        assert torch.equal(loaded(x), taylor(x))
