"""Centred keys: a mean taken away by hand, which softmax cannot see, and regions that do not mix."""

from __future__ import annotations

import pytest
import torch

from taylorir.attention.centring import centre_keys
from taylorir.attention.operator import taylor_efficient
from taylorir.attention.reference import softmax_attention, taylor_direct


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_mean_goes_by_hand():
    k = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [11.0, -2.0]]])
    assert centre_keys(k).tolist() == [[[-4.0, 0.0], [-2.0, 4.0], [6.0, -4.0]]]
    labels = torch.tensor([7, 7, -1])
    assert centre_keys(k, labels).tolist() == [[[-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]]]
    queries = torch.tensor([7])
    assert torch.equal(centre_keys(k, (queries, labels)), centre_keys(k, labels))


@pytest.mark.parametrize("num_regions", [None, 4], ids=["counted", "given"])
def test_each_region_is_centred_as_if_it_were_alone(num_regions):
    k, labels = draw(2, 3, 4, 7, 5), torch.tensor([[0, 0, 1, 1, 3, 3, 3], [0] * 7, [1, 0, 1, 0, 1, 0, 1]])
    centred = centre_keys(k, labels, num_regions=num_regions)
    for window in range(3):
        for label in labels[window].unique():
            members = labels[window] == label
            alone = k[:, window, :, members]
            torch.testing.assert_close(centred[:, window, :, members], alone - alone.mean(-2, keepdim=True))


def test_softmax_does_not_see_it_and_taylorshift_does():
    q, k, v = draw(3, 2, 4, 9, 5)
    k = k + 3  # what all keys share
    labels = torch.tensor([[0] * 4 + [2] * 5, [1] * 9])
    mask = (labels[..., :, None] == labels[..., None, :])[:, None]
    centred = centre_keys(k, labels)
    torch.testing.assert_close(
        softmax_attention(q, centred, v, mask=mask), softmax_attention(q, k, v, mask=mask)
    )
    direct = taylor_direct(q, centred, v, mask=mask)
    torch.testing.assert_close(taylor_efficient(q, centred, v, regions=labels), direct, rtol=0, atol=1e-12)
    assert (direct - taylor_direct(q, k, v, mask=mask)).abs().max() > 0.01


def test_its_derivative_and_its_precision():
    k, labels = draw(1, 2, 5, 3).requires_grad_(), torch.tensor([0, 1, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda k: centre_keys(k, labels), (k,))
    low = (draw(1, 2, 64, 8) + 100).bfloat16()
    exact = low.double() - low.double().mean(-2, keepdim=True)
    torch.testing.assert_close(centre_keys(low), exact.bfloat16(), rtol=2e-2, atol=1e-4)
