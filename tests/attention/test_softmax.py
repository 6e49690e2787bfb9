"""Softmax attention without its weights: what the definition says, in every backend, layout and dtype."""

import pytest
import torch

from taylorir.attention import softmax_attention, softmax_fused
from taylorir.attention.kernels import cpp_operator

needs_kernels = pytest.mark.skipif(not cpp_operator.load(), reason="no C++ compiler")
BACKENDS = pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_kernels)])


def inputs(*shape, keys=None, d_v=None, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    *batch, n, d = shape
    shapes = [shape, (*batch, keys or n, d), (*batch, keys or n, d_v or d), (*batch, n, d_v or d)]
    q, k, v, dy = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [2 * q.to(dtype), k.to(dtype), v.to(dtype)], dy.to(dtype)


def results(attention, x, bias, dy, **options):
    x = [t.detach().requires_grad_() for t in (*x, *(() if bias is None else (bias,)))]
    y = attention(*x[:3], bias=x[3] if bias is not None else None, **options)
    return y.detach(), *torch.autograd.grad(y, x, dy)


@BACKENDS
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("queries", "keys", "d", "d_v"),
    [(1, 1, 1, 1), (9, 9, 4, 4), (64, 64, 8, 8), (70, 201, 10, 17), (200, 65, 30, 3)],
)
def test_outputs_and_gradients_are_those_of_the_definition(queries, keys, d, d_v, biased, backend):
    x, dy = inputs(2, 3, queries, d, keys=keys, d_v=d_v)
    bias = 3 * torch.randn(3, queries, keys, dtype=torch.float64) if biased else None
    expected = results(softmax_attention, x, bias, dy)
    found = results(softmax_fused, x, bias, dy, backend=backend)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@BACKENDS
def test_tokens_attend_within_their_region_and_one_alone_gets_nothing(backend):
    x, dy = inputs(4, 2, 150, 6, keys=130)
    labels = torch.randint(3, (2, 150)), torch.randint(3, (2, 130))
    labels[0][0, 5], labels[1][1, 7] = 40, -3  # without a partner
    labels = tuple(t.repeat(2, 1) for t in labels)
    mask = (labels[0][:, :, None] == labels[1][:, None, :])[:, None]
    bias = torch.randn(2, 150, 130, dtype=torch.float64)
    expected = results(softmax_attention, x, bias, dy, mask=mask)
    found = results(softmax_fused, x, bias, dy, regions=labels, backend=backend)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not expected[0][0, :, 5].any() and not expected[2][1, :, 7].any()
