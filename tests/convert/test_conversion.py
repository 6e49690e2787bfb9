"""What is converted, what is kept, what is refused; centred keys and labels of windows by hand."""

import pytest
import torch
from torch import nn

from taylorir.attention import softmax_attention
from taylorir.convert import taylorize
from taylorir.convert.operator import centred
from taylorir.convert.regions import labels_of_mask, shifted_labels
from taylorir.networks import TaylorWindowAttention, WindowAttention, build_model
from tests.random_networks import stirred


def test_swinir_of_this_project_keeps_softmax_where_it_is_asked_to():
    model = stirred(build_model("swinir_tiny_x2", depths=(2, 1))).eval()
    image = torch.rand(1, 3, 16, 16)
    taylor = taylorize(model, keep=["layers.0.residual_group.blocks.1"], temperature=1.5)
    attentions = [module for module in taylor.modules() if isinstance(module, WindowAttention)]
    assert [isinstance(module, TaylorWindowAttention) for module in attentions] == [True, False, True]
    assert attentions[0].temperature.tolist() == attentions[2].temperature.tolist() == [1.5] * 3
    with torch.no_grad():
        assert torch.equal(taylorize(model, keep=["layers"])(image), model(image))
        assert not torch.allclose(taylor(image), model(image), atol=1e-4)
    with pytest.raises(
        ValueError, match=r"layers\.1.* cannot be kept, as its windows change with window_size"
    ):
        taylorize(model, keep=["layers.1"], window_size=16)


def test_what_cannot_be_converted_is_refused_in_one_line():
    for model, message in (
        (nn.Sequential(nn.Conv2d(3, 3, 3)), "cannot taylorize Sequential: no module in it is known"),
        (build_model("swinir_tiny_x2"), "keep names no module of SwinIR: 'layer.0'"),
    ):
        with pytest.raises(ValueError, match=message):
            taylorize(model, keep=() if isinstance(model, nn.Sequential) else ["layer.0"])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        taylorize("swinir_s_x2")


def test_labels_of_a_shifted_image_by_hand():
    """4 x 6 tokens in windows of 2 x 3, rolled by one row: the lower windows hold a row from the top."""
    labels = shifted_labels(4, 6, (2, 3), (1, 0))
    assert labels.tolist() == [[0] * 6, [0] * 6, [0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2]]
    labels = shifted_labels(2, 6, (2, 3), (1, 2))
    assert labels.tolist() == [[0, 0, 0, 2, 2, 2], [0, 1, 1, 2, 3, 3]]


def test_a_mask_is_read_as_labels_or_refused():
    allowed = torch.tensor([[[1, 0, 1], [0, 1, 0], [1, 0, 1]]]).bool()
    for mask in (allowed, torch.zeros(1, 3, 3).masked_fill(~allowed, -100.0)):
        assert labels_of_mask(mask).tolist() == [[0, 1, 0]]
    overlapping = torch.tensor([[[1, 1, 0], [1, 1, 1], [0, 1, 1]]]).bool()
    bias = torch.zeros(1, 3, 3).masked_fill(~allowed, -1.0)
    for mask in (overlapping, bias, torch.ones(3, 3).tril().bool()):
        with pytest.raises(ValueError, match=r"3\] is not block-structured"):
            labels_of_mask(mask)


@pytest.mark.parametrize("labels", [None, torch.tensor([[0, 1, 0, 3, 1], [0, 0, 0, 0, 2]])])
def test_centred_keys_have_no_mean_and_softmax_does_not_see_it(labels):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 2, 5, 3, dtype=torch.float64)
    new = centred(k, labels)
    same = torch.zeros(2, 5, dtype=int) if labels is None else labels
    mask = same[:, :, None] == same[:, None, :]
    expected = k - (mask[:, None].double() / mask.sum(-1)[:, None, :, None]) @ k
    torch.testing.assert_close(new, expected, rtol=0, atol=1e-14)
    softmax = [softmax_attention(q, keys, v, mask=mask[:, None]) for keys in (k, new)]
    torch.testing.assert_close(*softmax, rtol=0, atol=1e-14)
