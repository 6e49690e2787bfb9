"""On a CPU, for its output alone, a network takes a part of its tokens at a time: the same numbers."""

import pytest
import torch

from taylorir.attention import as_on_gpu
from taylorir.networks import swinir, window_attention
from taylorir.networks.variants import build_model
from tests.random_networks import stirred

NETWORKS = {
    "softmax": {"position": "bias"},
    "softmax, no bias": {"softmax_backend": "flash", "position": "none"},
    "softmax, naive": {"softmax_backend": "naive", "position": "rope"},
    "softmax, rib": {"position": "rib"},
    "taylor, rib": {"attention": "taylor", "position": "rib", "centre_keys": True},
    "taylor": {"attention": "taylor", "scale_output": True},
    "taylor, direct": {"attention": "taylor", "attention_form": "direct", "position": "rope"},
    "taylor, published": {"attention": "taylor", "attention_form": "published", "position": "lepe"},
}


@pytest.fixture
def small_parts(monkeypatch):
    for module in (swinir, window_attention):
        monkeypatch.setattr(module, "PART_TOKENS", 40)


def network(**settings):
    settings = {"embed_dim": 8, "num_heads": 2, "depths": (2,), "window_size": 4} | settings
    return stirred(build_model("swinir_tiny_x2", **settings)).double().eval()


def rows_of(module, model, image):
    """Tokens of each call of a module, in one forward pass."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][..., 0].numel()))
    model(image)
    handle.remove()
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_change_nothing(name, small_parts):
    model = network(**NETWORKS[name])
    images = torch.rand(2, 3, 11, 14, dtype=torch.float64)
    with torch.no_grad():
        found = model(images)
    torch.testing.assert_close(found, model(images).detach(), rtol=1e-12, atol=1e-12)


def test_no_part_holds_more_tokens_than_it_may(small_parts):
    model = network(attention="taylor")
    image = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    plain, shifted = model.layers[0].residual_group.blocks
    with torch.no_grad():
        assert rows_of(plain.attn.proj, model, image) == [32] * 6  # two of twelve windows of 16 tokens
        borders, inner = [4, 24, 4], [16, 32, 16, 32, 16, 16]  # band by band, row of rectangles by row
        assert rows_of(shifted.attn.proj, model, image) == [*borders, *inner, *borders]
        with as_on_gpu():
            assert rows_of(plain.attn.proj, model, image) == [192]
    assert rows_of(plain.attn.proj, model, image) == [192]


def test_a_hook_on_a_step_of_a_block_sees_all_tokens(small_parts):
    model, image = network(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    block = model.layers[0].residual_group.blocks[0]
    with torch.no_grad():
        for module in (block.norm1, block.attn, block.norm2, block.mlp, block.mlp.fc1):
            assert rows_of(module, model, image) == [64]


@pytest.mark.parametrize(("size", "expected"), [((12, 16), [32] * 6), ((4, 4), [16])], ids=["many", "one"])
def test_a_block_takes_windows_from_norm_to_mlp_and_leaves_its_input(
    size, expected, small_parts, monkeypatch
):
    block = network(attention="taylor").layers[0].residual_group.blocks[0]
    seen = {}
    for name in ("norm1", "norm2"):
        norm = getattr(block, name)
        steps, forward = seen.setdefault(name, []), norm.forward
        monkeypatch.setattr(
            norm,
            "forward",
            lambda x, steps=steps, forward=forward: steps.append(x[..., 0].numel()) or forward(x),
        )
    x = torch.randn(1, *size, 8, dtype=torch.float64)
    kept = x.clone()
    with torch.no_grad():
        block(x)
    assert seen == {"norm1": expected, "norm2": expected}
    assert torch.equal(x, kept)


def test_stochastic_depth_takes_no_part(small_parts):
    model = network(drop_path_rate=1.0)
    block = model.layers[0].residual_group.blocks[-1].train()
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(block(x), x)
