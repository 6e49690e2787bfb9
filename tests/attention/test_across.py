"""Attention of some tokens to others: N queries and M keys, labels for both, and batches of nothing."""

import pytest
import torch

from taylorir.attention import (
    softmax_attention,
    taylor_attention,
    taylor_direct,
    taylor_efficient,
    taylor_sums,
)
from taylorir.attention.kernels import segments

pytestmark = pytest.mark.usefixtures("each_backend")

# of queries and of keys, in two windows; query label 7 has no key, and key label 8 no query
QUERY_LABELS = torch.tensor([[0, 1, 7, 1, 0], [2, 2, 2, 2, 2]])
KEY_LABELS = torch.tensor([[1, 0, 8, 0, 1, 1, 8], [2, 2, 2, 2, 2, 2, 2]])


def blocked_direct(q, k, v, **options):
    return taylor_attention(q, k, v, crossover=10**9, **options)


FORMS = pytest.mark.parametrize("form", [taylor_sums, taylor_efficient, blocked_direct])


def inputs(queries=5, keys=7):
    generator = torch.Generator().manual_seed(0)
    sizes = ((queries, 3), (keys, 3), (keys, 4))
    return [
        torch.randn(2, 2, *size, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in sizes
    ]


def test_direct_by_hand():
    q = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    k = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]], dtype=torch.float64)
    v = torch.tensor([[[1.0], [2.0], [4.0]]], dtype=torch.float64)
    first, second, third = 1 + 0.6 + 0.18, 1 + 0.8 + 0.32, 1.0
    expected = (first + 2 * second + 4 * third) / (first + second + third)
    for form in (taylor_direct, taylor_sums, taylor_efficient, blocked_direct):
        assert form(q, k, v).item() == pytest.approx(expected, abs=1e-14)
        scaled = form(q, k, v, scale_output=True).item()
        assert scaled == pytest.approx(expected * (3 / 2) ** 0.5, abs=1e-14)  # sqrt(M / d)


@FORMS
@pytest.mark.parametrize("in_regions", [False, True], ids=["whole", "regions"])
@pytest.mark.parametrize("small_portions", [False, True], ids=["one", "many"])
def test_forms_are_the_direct_one(form, in_regions, small_portions, monkeypatch):
    if small_portions:
        monkeypatch.setattr(segments, "CACHED_NUMBERS", 1)
        leaves = inputs(300, 280)
        labels = torch.arange(300).expand(2, -1) // 150, torch.arange(280).expand(2, -1) % 3
    else:
        leaves, labels = inputs(), (QUERY_LABELS, KEY_LABELS)
    tau = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    mask = labels[0][:, None, :, None] == labels[1][:, None, None, :] if in_regions else None
    regions = labels if in_regions else None
    results = []
    for y in (
        form(*leaves, temperature=tau, regions=regions, scale_output=True),
        taylor_direct(*leaves, temperature=tau, mask=mask, scale_output=True),
    ):
        results.append((y, *torch.autograd.grad(y.pow(3).sum(), (*leaves, tau))))
    torch.testing.assert_close(*results, rtol=0, atol=1e-11)


@FORMS
def test_a_query_without_a_key_gets_zero_and_no_gradient(form, memory_of_nan):
    q, k, v = inputs()
    y = form(q, k, v, regions=(QUERY_LABELS, KEY_LABELS))
    y.square().sum().backward()
    assert (y[0, :, 2] == 0).all() and (y[0, :, :2] != 0).all()
    assert (q.grad[0, :, 2] == 0).all() and (q.grad[0, :, 0] != 0).all()
    for gradient in (k.grad, v.grad):  # keys that no query meets
        assert (gradient[0, :, [2, 6]] == 0).all() and (gradient[0, :, 0] != 0).all()


def test_softmax_takes_a_mask_and_a_bias_of_queries_and_keys():
    q, k, v = inputs()
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    bias = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias.masked_fill(~mask, -torch.inf))
    torch.testing.assert_close(softmax_attention(q, k, v, bias=bias, mask=mask), expected, rtol=0, atol=1e-14)


def test_the_cheaper_form_is_by_the_harmonic_mean():
    q, k, v = inputs(10, 20)  # harmonic mean 13 1/3; N0 of d = 3 is 13
    for keys, expected in ((20, taylor_efficient), (18, blocked_direct)):  # 12.9
        given = q.float(), k[:, :, :keys].float(), v[:, :, :keys].float()
        assert torch.equal(taylor_attention(*given, backend="torch"), expected(*given, backend="torch"))
        without_batch = [x[0] for x in given]
        found = taylor_attention(*without_batch, backend="torch")
        assert torch.equal(found, expected(*without_batch, backend="torch"))


def test_wrong_regions_and_keys():
    q, k, v = inputs()
    with pytest.raises(ValueError, match="regions must be a pair, labels of the 5 queries and of the 7 keys"):
        taylor_efficient(q, k, v, regions=QUERY_LABELS)
    with pytest.raises(ValueError, match=r"regions\[1\] must be labels .* = \[2, 7\], got shape \[2, 5\]"):
        taylor_efficient(q, k, v, regions=(QUERY_LABELS, QUERY_LABELS))
    with pytest.raises(TypeError, match=r"regions\[0\] must be an integer tensor .* got torch.float32"):
        taylor_efficient(q, k, v, regions=(QUERY_LABELS.float(), KEY_LABELS))
    with pytest.raises(ValueError, match=r"v must have the tokens of k, expected \[2, 2, 7, 'd_v'\]"):
        taylor_efficient(q, k, v[:, :, :5])


@pytest.mark.parametrize("form", [taylor_direct, taylor_sums, taylor_efficient, taylor_attention])
def test_no_heads_and_no_keys_are_refused(form):
    with pytest.raises(ValueError, match=r"q must have H >= 1 heads .* got q \[2, 0, 5, 3\]"):
        form(*(torch.zeros(2, 0, 5, 3) for _ in range(3)))
    q, k, v = inputs()
    with pytest.raises(ValueError, match=r"N >= 1 tokens .* v \[2, 2, 0, 4\]"):
        form(q, k[:, :, :0], v[:, :, :0])


@pytest.mark.parametrize("form", [taylor_efficient, taylor_attention, blocked_direct])
@pytest.mark.parametrize("in_regions", [False, True], ids=["whole", "regions"])
def test_a_batch_of_nothing_has_gradients(form, in_regions):
    q, k, v = (torch.zeros(0, 2, 5, 3, requires_grad=True) for _ in range(3))
    tau = torch.ones(2, requires_grad=True)
    regions = torch.zeros(0, 5, dtype=torch.long) if in_regions else None
    y = form(q, k, v, temperature=tau, regions=regions)
    y.sum().backward()
    assert y.shape == q.grad.shape == k.grad.shape == v.grad.shape == (0, 2, 5, 3)
    assert tau.grad.tolist() == [0, 0]
