"""What is computed in which precision, where a vector counts as zero, and which backend serves."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from taylorir.attention import (
    softmax_attention,
    taylor_attention,
    taylor_direct,
    taylor_efficient,
    taylor_sums,
)
from taylorir.attention.kernels import triton_launch, triton_operator


def small_direct(q, k, v, **options):
    return taylor_attention(q, k, v, crossover=10**9, **options)


def blocked_direct(q, k, v, **options):
    regions = torch.zeros(q.shape[-2], dtype=torch.long)
    return taylor_attention(q, k, v, crossover=10**9, regions=regions, **options)


TAYLOR = [taylor_direct, taylor_sums, taylor_efficient, small_direct, blocked_direct]
ALL = pytest.mark.parametrize("form", [softmax_attention, *TAYLOR], ids=lambda form: form.__name__)


def inputs(dtype, tokens=12):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 2, tokens, 5, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)
    ]


@ALL
def test_autocast_leaves_float64_alone(form):
    q, k, v = (x.requires_grad_() for x in inputs(torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        y = form(q, k, v)
    assert y.dtype == torch.float64
    expected = form(q, k, v)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-15)
    gradients = (torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (y, expected))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


@ALL
def test_under_autocast_products_are_taken_in_float32(form):
    """So that nothing but inputs and output is rounded."""
    q, k, v = inputs(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = form(q, k, v)
    assert torch.equal(y, form(q, k, v))


@pytest.mark.parametrize("form", TAYLOR[2:], ids=lambda form: form.__name__)
def test_under_autocast_gradients_of_the_fast_forms_are_taken_in_float32(form):
    q, k, v = (x.requires_grad_() for x in inputs(torch.bfloat16))
    probe = torch.ones_like(v)
    with torch.autocast("cpu", torch.bfloat16):
        actual = torch.autograd.grad(form(q, k, v), (q, k, v), probe)
    assert all(map(torch.equal, actual, torch.autograd.grad(form(q, k, v), (q, k, v), probe)))


@pytest.mark.parametrize("form", TAYLOR, ids=lambda form: form.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_vectors_above_epsilon_have_a_direction_and_others_have_none(form, dtype):
    q, k, v = inputs(dtype)
    expected = form(q, k, v)
    tolerance = 100 * torch.finfo(dtype).eps
    norm = q.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(form(q / norm * 2e-12, 1e-9 * k, v), expected, rtol=0, atol=tolerance)
    mean = v.mean(2, keepdim=True).expand_as(v)
    torch.testing.assert_close(form(q / norm * 5e-13, k, v), mean, rtol=0, atol=tolerance)


@pytest.fixture
def served_by_triton(monkeypatch):
    """Which calls reach the Triton kernels; they are said to be there, and to take these tensors."""
    calls = []

    def kernels(q, k, v, temperature=1.0, regions=None):
        calls.append(q.shape[-2])
        return torch.empty_like(v)

    monkeypatch.setattr(triton_operator, "is_available", lambda: True)
    monkeypatch.setattr(triton_operator, "supports", lambda q, v: q.dtype != torch.float64)
    monkeypatch.setattr(triton_operator, "taylor_efficient_triton", kernels)
    return calls


def on_a_gpu(tokens, dtype=torch.float32):
    return [torch.empty(1, 2, tokens, 10, dtype=dtype, device="cuda") for _ in range(3)]


@pytest.mark.parametrize("tokens", [16, 64, 576, 2304])
def test_auto_takes_triton_on_a_gpu_at_any_number_of_tokens(served_by_triton, tokens):
    with FakeTensorMode():
        taylor_attention(*on_a_gpu(tokens), scale_output=True)
        taylor_efficient(*on_a_gpu(tokens))
    assert served_by_triton == [tokens, tokens]


def test_auto_takes_plain_pytorch_where_triton_does_not_serve(served_by_triton):
    with FakeTensorMode():
        taylor_attention(*on_a_gpu(64), backend="torch")
        taylor_attention(*on_a_gpu(64, torch.float64))
        taylor_attention(*on_a_gpu(64), crossover=65)  # a crossover that is given is kept to
        labels = torch.zeros(64, dtype=torch.long, device="cuda")
        taylor_attention(*on_a_gpu(64), regions=(labels, labels.clone()))  # of queries and of keys
    taylor_attention(*inputs(torch.float32))
    assert served_by_triton == []
    with FakeTensorMode():
        taylor_attention(*on_a_gpu(64), crossover=64)
    assert served_by_triton == [64]


@pytest.mark.parametrize("inference", [False, True], ids=["labels", "labels of inference mode"])
def test_labels_that_were_written_to_are_read_again(inference):
    q, k, v = inputs(torch.float64)
    with torch.inference_mode(inference):
        labels = torch.zeros(1, 12, dtype=torch.long)
    for _ in range(2):
        with torch.inference_mode(inference):
            labels[:, 4:] += 1
        mask = labels[:, None, :, None] == labels[:, None, None, :]
        expected = taylor_direct(q, k, v, mask=mask)
        for form in (taylor_efficient, small_direct):
            torch.testing.assert_close(form(q, k, v, regions=labels), expected, rtol=0, atol=1e-13)
        tables = triton_launch.region_tables(labels, 16)
        assert tables.segments[:, 4].tolist() == [4, 8]
        labels.numpy()[:, :2] += 5  # which no version counts
        assert triton_launch.region_tables(labels, 16).segments[:, 4].tolist() == [2, 8, 2]
        labels.numpy()[:, :2] -= 5
