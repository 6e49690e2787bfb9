"""What is converted, what is kept, what is refused; labels of windows by hand."""

import copy

import pytest
import torch
from torch import nn

from taylorir.attention import taylor_direct
from taylorir.convert import taylorize
from taylorir.convert.regions import labels_of_mask, shifted_labels
from taylorir.networks import TaylorWindowAttention, WindowAttention, build_model
from tests.convert.families import FAMILIES, UNKNOWN
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
        (
            nn.Sequential(nn.Conv2d(3, 3, 3)),
            "cannot taylorize Sequential: no module in it attends by softmax",
        ),
        (nn.Linear(4, 4), r"cannot taylorize Linear: no module .* image of \(64, 64\) cannot be run"),
        (UNKNOWN["DITN"].network().float(), r"\(ISA\): attends over 12 channels, not tokens"),
        (UNKNOWN["RestoreFormer"].network().float(), r"\(MultiHeadAttnBlock\): no adapter knows MultiHead"),
        (build_model("swinir_tiny_x2"), "keep names no module of SwinIR: 'layer.0'"),
        (
            taylorize(nn.MultiheadAttention(4, 2)),
            "cannot taylorize TaylorMultiheadAttention: it is converted already",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            taylorize(model, keep=["layer.0"] if hasattr(model, "layers") else ())
    with pytest.raises(ValueError, match="window_size must be None: MultiheadAttention attends over whole"):
        taylorize(nn.MultiheadAttention(4, 2), window_size=8)
    with pytest.raises(ValueError, match=r"\(ISA\): attends over 12 channels"):
        taylorize(UNKNOWN["DITN"].network())  # of float64
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


def test_a_mask_that_others_make_is_read_as_regions():
    """Of a block that keeps softmax beside what is converted, and of a block that no one knows."""
    model = FAMILIES["transformers Swin2SR"].network().network
    taylor = taylorize(model, temperature=1.5)
    layer = model.swin2sr.encoder.stages[0].layers[1]
    mask = layer.get_attn_mask(8, 12, torch.float64)
    attention = taylor.swin2sr.encoder.stages[0].layers[1].attention.self
    tokens = torch.randn(12, 16, 12, dtype=torch.float64)  # 2 images of 6 windows
    q, k, v = (
        getattr(attention, name)(tokens).unflatten(-1, (2, 6)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    expected = taylor_direct(q, k, v, temperature=1.5, mask=(mask == 0).repeat(2, 1, 1)[:, None])
    (found,) = attention(tokens, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["transformers Swin2SR", "transformers Swin", "transformers ViT"])
def test_weights_of_transformers_are_refused(name):
    family = FAMILIES[name]
    network, image = taylorize(family.network()).network, family.image()
    with pytest.raises(ValueError, match="output_attentions must be False"):
        network(image, output_attentions=True)
    network.config._attn_implementation = "eager"
    network.config.output_attentions = True
    with pytest.raises(ValueError, match="output_attentions must be False"):
        network(image)


def test_what_multi_head_attention_can_and_taylorshift_cannot_is_refused():
    attention, tokens = taylorize(nn.MultiheadAttention(12, 2, batch_first=True)), torch.rand(2, 4, 12)
    for given, message in (
        ({"is_causal": True}, "cannot mask what comes later"),
        ({"key_padding_mask": torch.zeros(2, 4).bool()}, "key_padding_mask must be None"),
        ({"attn_mask": torch.ones(4, 4).triu(1).bool()}, "not block-structured"),
        ({"attn_mask": torch.zeros(4, 4, 4)}, r"attn_mask must be one for all, got \[4, 4, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            attention(tokens, tokens, tokens, **given)
    with pytest.raises(ValueError, match=r"query must be of a batch, with 3 axes, got \[4, 12\]"):
        attention(tokens[0], tokens[0], tokens[0])
    halves = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1) == 0
    apart = torch.cat([attention(part, part, part)[0] for part in tokens.split(2, 1)], 1)
    torch.testing.assert_close(attention(tokens, tokens, tokens, attn_mask=halves)[0], apart)


@pytest.mark.parametrize("name", ["DAT", "transformers Swin2SR", "torch TransformerEncoder"])
def test_dtype_mode_and_what_may_be_trained_are_kept(name):
    for training in (False, True):
        model = FAMILIES[name].network().train(training).requires_grad_(False)
        taylor = taylorize(model, window_size=FAMILIES[name].window_size)
        copied = copy.deepcopy(model)  # in which einops forgets its mode
        assert [m.training for m in taylor.modules()] == [
            copied.get_submodule(name).training for name, _ in taylor.named_modules()
        ]
        assert {parameter.dtype for parameter in taylor.parameters()} == {torch.float64}
        trained = [name for name, parameter in taylor.named_parameters() if parameter.requires_grad]
        assert trained and all(name.endswith("temperature") for name in trained)


def test_a_converted_network_is_exported():
    family = FAMILIES["transformers Swin2SR"]
    model, image = taylorize(family.network()), family.image()
    with torch.no_grad():
        exported = torch.export.export(model, (image,), strict=False).module()
        torch.testing.assert_close(exported(image), model(image), rtol=0, atol=1e-12)


def test_too_few_keys_are_said_once(caplog):
    attention = taylorize(nn.MultiheadAttention(10, 2, batch_first=True))
    for tokens in (31, 30, 30):  # of d = 5, and N0 is 31
        attention(*torch.rand(3, 1, tokens, 10))
    assert caplog.messages == ["30 keys of d = 5 are fewer than 31: TaylorShift saves nothing there"]
