"""Softmax attention without its weights: what the definition says, in every backend, layout and dtype."""

import math
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from taylorir.attention import as_on_gpu, softmax_attention, softmax_fused
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
@pytest.mark.parametrize(
    "windows", [2, 9], ids="{} windows".format
)  # from some on a bias is turned once for all
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("queries", "keys", "d", "d_v"),
    [(1, 1, 1, 1), (9, 9, 4, 4), (64, 64, 8, 8), (70, 201, 10, 17), (200, 65, 30, 3)],
)
def test_outputs_and_gradients_are_those_of_the_definition(queries, keys, d, d_v, biased, windows, backend):
    x, dy = inputs(windows, 3, queries, d, keys=keys, d_v=d_v)
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


@needs_kernels
@pytest.mark.parametrize("layout", ["heads last", "numbers apart", "every second token", "two batch axes"])
def test_any_layout_of_the_tensors(layout):
    x, dy = inputs(4, 3, 70, 5)
    bias = torch.randn(3, 70, 70, dtype=torch.float64)
    expected = results(softmax_fused, x, bias, dy, backend="cpp")
    laid = {
        "heads last": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        "numbers apart": lambda t: t.mT.contiguous().mT,
        "every second token": lambda t: t.repeat_interleave(2, -2)[..., ::2, :],
        "two batch axes": lambda t: t.unflatten(0, (2, 2)),
    }[layout]
    found = results(softmax_fused, [laid(t) for t in x], bias.mT.contiguous().mT, laid(dy), backend="cpp")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=0, atol=1e-15)


@needs_kernels
def test_a_bias_of_one_head_or_one_row_is_broadcast():
    x, dy = inputs(2, 3, 20, 4)
    for bias in (torch.randn(1, 20, 20), torch.randn(3, 1, 20), torch.randn(20), torch.randn(1, 3, 20, 1)):
        bias = bias.double()
        expected = results(softmax_attention, x, bias, dy)
        torch.testing.assert_close(
            results(softmax_fused, x, bias, dy, backend="cpp"), expected, rtol=0, atol=1e-12
        )


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rounding_is_no_worse_than_that_of_plain_pytorch(dtype):
    x, dy = inputs(2, 3, 150, 10)
    x, dy = [t.to(dtype) for t in x], dy.to(dtype)
    bias = torch.randn(3, 150, 150)
    exact = [t.double() for t in x]
    truth = results(softmax_attention, exact, bias.double(), dy.double())
    errors = {
        attention: [
            float((a.double() - b).norm() / b.norm())
            for a, b in zip(results(attention, x, bias, dy), truth, strict=True)
        ]
        for attention in (softmax_attention, softmax_fused)
    }
    rounded = {torch.float32: 2e-7, torch.bfloat16: 2e-3, torch.float16: 3e-4}[dtype]
    for ours, theirs in zip(errors[softmax_fused], errors[softmax_attention], strict=True):
        assert ours <= 1.1 * theirs + rounded


@needs_kernels
def test_scores_of_any_size_neither_overflow_nor_vanish():
    x, _ = inputs(1, 1, 90, 4, dtype=torch.float32)
    x[0] = 200 * x[0]  # scores of some hundreds, of either sign
    y = softmax_fused(*x, backend="cpp")
    torch.testing.assert_close(y, softmax_attention(*x), rtol=2e-4, atol=1e-4)  # a score is right to 3e-5
    bias = torch.full((90, 90), -math.inf).fill_diagonal_(0)  # each token alone, far from the first chunk
    torch.testing.assert_close(softmax_fused(*x, bias=bias, backend="cpp"), x[2], rtol=1e-6, atol=0)


@needs_kernels
@pytest.mark.parametrize(("windows", "tokens"), [(1, 600), (5, 64)])
def test_threads_repeat_themselves(windows, tokens):
    x, dy = inputs(windows, 1, tokens, 6)
    bias = torch.randn(1, tokens, tokens, dtype=torch.float64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(softmax_fused, x, bias, dy, backend="cpp")
        torch.set_num_threads(2)
        both, again = (results(softmax_fused, x, bias, dy, backend="cpp") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(both, again, strict=True))


@BACKENDS
def test_a_gradient_may_be_differentiated_where_the_bias_learns(backend):
    x, dy = inputs(2, 2, 12, 3)
    bias = torch.randn(2, 12, 12, dtype=torch.float64)

    def curvature(attention, **options):
        q, k, v, b = (t.detach().requires_grad_() for t in (*x, bias))
        y = attention(q, k, v, bias=b, **options)
        first = torch.autograd.grad((y * dy).sum(), (q, b), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (q, k, v, b))

    expected = curvature(softmax_attention)
    torch.testing.assert_close(curvature(softmax_fused, backend=backend), expected, rtol=0, atol=1e-10)


def test_what_it_saves_is_linear_in_the_number_of_tokens():
    if not cpp_operator.load():
        pytest.skip("no C++ compiler")
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        x, _ = inputs(1, 2, 400, 5)
        softmax_fused(*(t.requires_grad_() for t in x))
    assert sum(saved) == 400 * 2 * (3 * 5 + 5 + 1)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch.func.jvp itself
def test_who_traces_or_watches_sees_pytorch():
    x, _ = inputs(1, 2, 9, 3)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        softmax_fused(*x)
    assert any("scaled_dot_product" in name for name in seen)
    assert not any("taylorir" in name for name in seen)
    with as_on_gpu():
        torch.testing.assert_close(softmax_fused(*x), softmax_attention(*x), rtol=0, atol=1e-12)
    found = torch.func.jvp(lambda *x: softmax_fused(*x), tuple(x), tuple(x))[1]
    torch.testing.assert_close(found, torch.func.jvp(softmax_attention, tuple(x), tuple(x))[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "triton"}, "backend must be one of 'auto', 'torch', 'cpp', got 'triton'"),
        ({"bias": torch.zeros(4, 8, 8)}, "bias must broadcast to"),
        ({"regions": torch.zeros(7, dtype=torch.int64)}, "regions must be labels"),
        pytest.param(
            {"backend": "cpp", "bias": torch.zeros(2, 2, 8, 8)}, "takes a bias [H, N, M]", marks=needs_kernels
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    q = torch.zeros(2, 2, 8, 3)
    with pytest.raises(ValueError, match=re.escape(message)):
        softmax_fused(q, q, q, **options)
