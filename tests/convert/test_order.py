"""A converted module attends with a series of higher order where one is asked for, region by region."""

import math

import pytest
import torch
from torch import nn

from taylorir.convert.operator import TaylorAttention


def attention(order: int) -> TaylorAttention:
    made = TaylorAttention()
    made.temperature, made.centre_keys, made.order = (
        nn.Parameter(torch.full((2,), 3.0).double()),
        False,
        order,
    )
    return made


@pytest.mark.parametrize("order", [2, 4, 6])
def test_weights_are_the_series_up_to_its_order(order):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 5, 3, dtype=torch.float64)
    x = 3 * nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).mT
    weights = sum(x**n / math.factorial(n) for n in range(order + 1))
    expected = weights / weights.sum(-1, keepdim=True) @ v
    torch.testing.assert_close(attention(order).attend(q, k, v), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [2, 4])
def test_regions_attend_to_themselves_alone_in_any_order(order):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 3, dtype=torch.float64)  # two images of one window each
    labels = torch.tensor([[0, 0, 1, 1, 1]])
    found = attention(order).attend(q, k, v, labels)
    for part in (slice(0, 2), slice(2, 5)):
        alone = attention(order).attend(q[..., part, :], k[..., part, :], v[..., part, :])
        torch.testing.assert_close(found[..., part, :], alone, rtol=0, atol=1e-12)
