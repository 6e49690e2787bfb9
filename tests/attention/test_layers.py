"""Layers of each token in one pass: the numbers of PyTorch's layers, and where these serve themselves."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from taylorir.attention import layers as module, token_layers
from taylorir.attention.kernels import cpp_operator

needs_kernel = pytest.mark.skipif(not cpp_operator.load(), reason="no C++ compiler")
SIZES = ((60, 120), (48, 96), (7, 5), (1, 3), (180, 360))  # C and hidden
PARTS = tuple(itertools.product((False, True), repeat=3))  # norm, second layer, residual


def make(channels: int, hidden: int, parts: tuple[bool, bool, bool]) -> tuple[list[nn.Module], dict]:
    """The first and maybe the second layer, and the keywords."""
    has_norm, has_second, _ = parts
    first, second = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
    norm = nn.LayerNorm(channels)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return [first, second] if has_second else [first], {"norm": norm} if has_norm else {}


def by_definition(x: Tensor, layers: list[nn.Module], norm: nn.Module | None = None) -> Tensor:
    layers, norm = copy.deepcopy((layers, norm))
    y = x.double() if norm is None else norm.double()(x.double())
    for i, layer in enumerate(layers):
        y = layer.double()(functional.gelu(y) if i else y)
    return y


@needs_kernel
@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_has_the_numbers_of_the_layers(size, parts):
    torch.manual_seed(0)
    layers, norm = make(*size, parts)
    for shape in ((1,), (5,), (2, 63), (3, 4, 16), (1, 1000)):
        x = 2 * torch.randn(*shape, size[0])
        expected = by_definition(x, layers, *norm.values())
        residual = torch.randn(expected.shape) if parts[2] else None
        if residual is not None:
            expected = expected + residual
        with torch.no_grad():
            assert module._has_kernel(x, [*norm.values(), *layers], residual)
            y = token_layers(x, *layers, **norm, residual=residual)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=4e-6)


@needs_kernel
def test_gelu_everywhere_as_exact_as_that_of_pytorch():
    """Through layers that let a number pass as it is."""
    x = torch.linspace(-40, 40, 20_001)[:, None]
    one = nn.Linear(1, 1)
    with torch.no_grad():
        one.weight.fill_(1), one.bias.fill_(0)
        y = token_layers(x, one, one)
    expected = functional.gelu(x.double())
    theirs = (functional.gelu(x) - expected).abs().max()
    assert (y - expected).abs().max() <= 2 * theirs


@needs_kernel
def test_views_and_no_tokens_at_all():
    layers, norm = make(12, 24, (True, True, True))
    image = torch.randn(2, 12, 9, 7).permute(0, 2, 3, 1)
    with torch.no_grad():
        whole = token_layers(image, *layers, **norm, residual=image)
        assert torch.equal(token_layers(image[:, 1:5, ::2], *layers, **norm, residual=image[:, 1:5, ::2]),
                           whole[:, 1:5, ::2])  # fmt: skip
        assert token_layers(image[:0], *layers, **norm).shape == (0, 9, 7, 12)


@needs_kernel
def test_what_is_not_finite_stays_in_its_token():
    layers, norm = make(12, 24, (True, True, True))
    x = torch.randn(130, 12)
    x[70, 3], x[71, 3] = torch.nan, torch.inf
    with torch.no_grad():
        y = token_layers(x, *layers, **norm, residual=x)
    assert y.isfinite().all(-1).logical_not().nonzero().flatten().tolist() == [70, 71]


@needs_kernel
@pytest.mark.parametrize(
    "why", ["gradients", "float64", "bfloat16", "autocast", "no bias", "backend", "another class", "a hook"]
)
def test_what_the_kernel_does_not_take_the_layers_do(why, monkeypatch):
    layers, norm = make(12, 24, (True, True, True))
    x = torch.randn(30, 12)
    if why in ("float64", "bfloat16"):
        x = x.to(getattr(torch, why))
        layers, norm = [layer.to(x.dtype) for layer in layers], {"norm": norm["norm"].to(x.dtype)}
    elif why == "no bias":
        layers[1] = nn.Linear(24, 12, bias=False)
    elif why == "backend":
        monkeypatch.setenv("TAYLORIR_BACKEND", "torch")
    elif why == "another class":
        layers[0] = type("Adapted", (nn.Linear,), {})(12, 24)
    seen = []
    if why == "a hook":
        layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast")
    with torch.set_grad_enabled(why == "gradients"), autocast:
        assert not module._has_kernel(x, [*norm.values(), *layers], x)
        y = token_layers(x, *layers, **norm, residual=x)
        assert torch.equal(y, x + layers[1](functional.gelu(layers[0](norm["norm"](x)))))
    assert len(seen) == 2 * (why == "a hook")
    if why == "gradients":
        y.sum().backward()
        assert all(parameter.grad is not None for parameter in layers[0].parameters())


def test_widths_that_do_not_fit_are_refused_as_ever():
    layers, norm = make(12, 24, (True, True, True))
    x = torch.randn(2, 3, 12)
    with torch.no_grad():
        for width in (11, 13):
            with pytest.raises(RuntimeError, match="shape"):
                token_layers(torch.randn(5, width), *layers)
            with pytest.raises(RuntimeError, match="normalized_shape"):
                token_layers(torch.randn(5, width), *layers, **norm)
        with pytest.raises(RuntimeError, match="shape"):
            token_layers(x, layers[0], nn.Linear(23, 12))
        wide = nn.LayerNorm((3, 12))
        nn.init.normal_(wide.weight)
        assert torch.equal(token_layers(x, layers[0], norm=wide), layers[0](wide(x)))
        one = torch.randn(12)
        torch.testing.assert_close(token_layers(x, *layers, residual=one), one + token_layers(x, *layers))
