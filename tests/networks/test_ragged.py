"""Ragged borders: windows as small as the image leaves them, and not a pixel made up."""

import dataclasses

import pytest
import torch

from taylorir.attention import softmax_attention, taylor_direct
from taylorir.networks.anatomy import model_rows
from taylorir.networks.variants import build_model
from tests.random_networks import stirred

WINDOW = 4
SETTINGS = {"embed_dim": 8, "num_heads": 2, "depths": (2,), "window_size": WINDOW}
SIZES = [(11, 14), (8, 13), (3, 9), (1, 1), (2, 6)]


def network(**overrides):
    return stirred(build_model("swinir_tiny_x2", **SETTINGS, **overrides)).double().eval()


def attentions(**overrides):
    """Of a plain block and of a shifted one."""
    return [block.attn for block in network(border="ragged", **overrides).layers[0].residual_group.blocks]


def who_meets(height, width, shift):
    """[H W, H W]: whether two tokens are in one window of a grid that is cut at s, s + w, ..."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cell = torch.stack(((rows - shift) // WINDOW, (columns - shift) // WINDOW), -1).flatten(0, 1)
    return (cell[:, None] == cell[None]).all(-1)


def heads_of(attention, x):
    qkv = attention.qkv(x.flatten(1, 2)).unflatten(-1, (3, attention.num_heads, -1))
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)  # q, k, v [B, heads, H W, d]


def joined(y, x):
    return y.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("form", ["auto", "direct", "efficient", "published"])
@pytest.mark.parametrize("scale_output", [False, True])
def test_taylor_is_the_direct_form_under_a_mask(form, scale_output, size):
    x = torch.randn(2, *size, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for attention in attentions(attention="taylor", attention_form=form, scale_output=scale_output):
        mask = who_meets(*size, attention.shift_size)
        y = taylor_direct(*heads_of(attention, x), temperature=attention.temperature, mask=mask)
        expected = joined(y, x) * ((WINDOW**2 / 4) ** 0.5 if scale_output else 1)
        torch.testing.assert_close(attention.attend(x), expected, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            torch.testing.assert_close(
                attention(x), attention.proj(expected).detach(), rtol=1e-10, atol=1e-10
            )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("backend", ["naive", "fused"])
def test_softmax_has_the_bias_of_each_offset(backend, size):
    x = torch.randn(2, *size, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down, right = rows[:, None] - rows, columns[:, None] - columns
    near = (down.abs() < WINDOW) & (right.abs() < WINDOW)
    index = torch.where(near, (down + WINDOW - 1) * (2 * WINDOW - 1) + right + WINDOW - 1, 0)
    for attention in attentions(softmax_backend=backend):
        bias = attention.relative_position_bias_table[index].permute(2, 0, 1)
        mask = who_meets(*size, attention.shift_size)
        expected = joined(softmax_attention(*heads_of(attention, x), bias=bias, mask=mask), x)
        torch.testing.assert_close(attention.attend(x), expected, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            torch.testing.assert_close(
                attention(x), attention.proj(expected).detach(), rtol=1e-10, atol=1e-10
            )


@pytest.mark.parametrize("attention", ["softmax", "taylor"])
def test_on_whole_windows_both_borders_are_the_same_and_else_they_differ(attention):
    model = network(attention=attention)
    images = [torch.rand(1, 3, *size, dtype=torch.float64) for size in ((8, 12), (9, 12))]
    padded = [model(image) for image in images]
    model.config = dataclasses.replace(model.config, border="ragged")
    whole, other = (model(image) for image in images)
    torch.testing.assert_close(whole, padded[0], rtol=1e-12, atol=1e-12)
    assert (other - padded[1]).abs().max() > 1e-3


def test_gradients_are_those_of_the_direct_form():
    gradients = []
    for form in ("direct", "efficient"):
        model = network(attention="taylor", attention_form=form, border="ragged")
        image = torch.rand(1, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        model(image).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_no_token_is_made_up():
    rows = model_rows(["taylorswinir_tiny_x2"], output=(40, 60), border="ragged", patch_size=2)
    assert rows.tokens.item() == 10 * 15
