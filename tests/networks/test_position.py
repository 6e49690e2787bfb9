"""Position: rotary scores depend on the offset; LePE convolves each channel; RIB is a bias in q and k."""

import itertools
import math

import pytest
import torch
from torch import nn

from taylorir.attention import softmax_attention, softmax_fused, taylor_direct, taylor_efficient
from taylorir.networks.position import RIB, LePE, rope_2d
from taylorir.networks.variants import build_model
from tests.random_networks import stirred

WIDTHS = [4, 10, 15, 30, 32]


@pytest.mark.parametrize("d", WIDTHS)
def test_rotary_keeps_the_norm(d):
    x = torch.randn(2, 3, 5 * 7, d, dtype=torch.float64)
    torch.testing.assert_close(rope_2d(x, 5, 7).norm(dim=-1), x.norm(dim=-1), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("d", WIDTHS)
def test_rotary_score_depends_on_the_offset_only(d):
    height, width = 5, 7
    q, k = torch.randn(2, d, dtype=torch.float64)
    turned_q, turned_k = (rope_2d(x.expand(height * width, d), height, width) for x in (q, k))
    scores = (turned_q @ turned_k.T).view(height, width, height, width)
    by_offset = {}
    for row in range(height):
        for column in range(width):
            for other_row in range(height):
                for other_column in range(width):
                    offset = (other_row - row, other_column - column)
                    by_offset.setdefault(offset, []).append(
                        float(scores[row, column, other_row, other_column])
                    )
    assert len(by_offset) == (2 * height - 1) * (2 * width - 1)
    assert max(max(x) - min(x) for x in by_offset.values()) < 1e-13
    means = sorted(sum(x) / len(x) for x in by_offset.values())
    assert min(b - a for a, b in itertools.pairwise(means)) > 1e-9, "two offsets score the same"


def test_rotary_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64).expand(6, 5)
    row, column = 1, 2
    turned = rope_2d(x, 2, 3)[row * 3 + column]
    expected = [
        1 * math.cos(row) - 3 * math.sin(row),
        2 * math.cos(column) - 4 * math.sin(column),
        1 * math.sin(row) + 3 * math.cos(row),
        2 * math.sin(column) + 4 * math.cos(column),
        5.0,
    ]
    torch.testing.assert_close(turned, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def test_rotary_speeds_fall_geometrically():
    x = torch.zeros(8, dtype=torch.float64)
    x[:4] = 1
    turned = rope_2d(x.expand(4, 8), 2, 2, base=9.0)[3]
    angles = torch.atan2(turned[4:], turned[:4])
    torch.testing.assert_close(angles, torch.tensor([1, 1 / 3, 1, 1 / 3], dtype=torch.float64))


def test_rotary_leaves_the_efficient_form_exact():
    q, k, v = torch.randn(3, 1, 2, 5 * 7, 10, dtype=torch.float64)
    q, k = rope_2d(q, 5, 7), rope_2d(k, 5, 7)
    torch.testing.assert_close(taylor_efficient(q, k, v), taylor_direct(q, k, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rotary_in_low_precision_is_rounded_once(dtype):
    x = torch.randn(48 * 48, 30).to(dtype)
    torch.testing.assert_close(rope_2d(x, 48, 48), rope_2d(x.float(), 48, 48).to(dtype), rtol=0, atol=0)


def test_rotary_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"x must have a token for each place.*3 \* 4 = 12.*\[2, 11, 8\]"):
        rope_2d(torch.zeros(2, 11, 8), 3, 4)
    with pytest.raises(ValueError, match=r"x must be at least 4 wide.*\[12, 3\]"):
        rope_2d(torch.zeros(12, 3), 3, 4)


def test_lepe_is_a_convolution_of_each_channel():
    lepe = LePE(2).double()
    kernel = torch.arange(9.0, dtype=torch.float64).view(3, 3)
    with torch.no_grad():
        lepe.conv.weight.copy_(torch.stack((kernel, -2 * kernel))[:, None])
        lepe.conv.bias.copy_(torch.tensor([0.0, 0.5]))
    v = torch.zeros(1, 4, 5, 2, dtype=torch.float64)
    v[0, 1, 2, 0] = 1
    v[0, 3, 4, 1] = 1
    expected = torch.zeros(4, 5, 2, dtype=torch.float64)
    expected[0:3, 1:4, 0] = kernel.flip(0, 1)
    expected[2:4, 3:5, 1] = -2 * kernel.flip(0, 1)[:2, :2]
    expected[..., 1] += 0.5
    torch.testing.assert_close(lepe(v)[0], expected, rtol=0, atol=0)


def test_lepe_refuses_an_even_kernel():
    with pytest.raises(ValueError, match=r"kernel_size must be odd.*4"):
        LePE(3, 4)


def drawn_rib(heads: int = 2, head_dim: int = 10) -> RIB:
    torch.manual_seed(0)
    rib = RIB(heads, head_dim).double()
    nn.init.uniform_(rib.strength, -1.0, 1.0)
    return rib


@pytest.mark.parametrize(("head_dim", "rank"), [(4, 12), (8, 8), (10, 6), (30, 10), (60, 12)])
def test_rib_fills_the_width_up_to_a_multiple_of_8(head_dim, rank):
    assert RIB(1, head_dim).rank == rank and (head_dim + rank) % 8 == 0


def test_rib_is_at_most_its_strength_and_begins_at_the_corner_of_its_rectangle():
    rib = drawn_rib()
    a, b = rib(6, 6, 6)
    for factor in (a, b):
        torch.testing.assert_close(factor.norm(dim=-1), torch.ones(2, 36, dtype=torch.float64))
    assert (a @ b.mT).abs().max() <= 1
    smaller = rib(2, 4, 6)[0].view(2, 2, 4, rib.rank)
    torch.testing.assert_close(smaller, a.view(2, 6, 6, rib.rank)[:, :2, :4])


def test_rib_joined_to_q_and_k_is_the_bias_that_it_stands_for():
    rib, (q, k, v) = drawn_rib(), torch.randn(3, 5, 2, 36, 10, dtype=torch.float64)
    a, b = rib(6, 6, 6)
    bias = rib.strength[:, None, None] * (a @ b.mT)
    wide_q, wide_k = rib.join_softmax(q, k, a, b)
    assert wide_q.shape[-1] == 16
    expected = softmax_attention(q, k, v, bias=bias)
    torch.testing.assert_close(softmax_attention(wide_q, wide_k, v), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(softmax_fused(wide_q, wide_k, v), expected, rtol=1e-12, atol=1e-12)

    tau = torch.tensor([1.5, -0.7], dtype=torch.float64)  # a learned one may cross zero
    cosines = nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).mT
    scores = tau[:, None, None] * cosines + bias
    weights = 1 + scores + scores.square() / 2
    expected = weights @ v / weights.sum(-1, keepdim=True)
    joined, settings = rib.join_taylor(q, k, a, b, tau), {"temperature": rib.joint_temperature(tau)}
    for form in (taylor_direct, taylor_efficient):
        torch.testing.assert_close(form(*joined, v, **settings), expected, rtol=0, atol=1e-12)


def test_rib_reproduces_a_bias_that_it_is_fitted_to():
    torch.manual_seed(0)
    place = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    offset = place[:, None] - place[None, :]
    target = 0.3 * (math.pi * offset / 6).cos().sum(-1)  # near tokens count more; of rank 4
    rib = RIB(1, 10)
    optimizer = torch.optim.Adam(rib.parameters(), lr=1e-2)
    for _ in range(400):
        a, b = rib(6, 6, 6)
        error = rib.strength[:, None, None] * (a @ b.mT) - target
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    assert target.max() - target.min() > 1 and error.abs().max() < 0.03
    q, k, v = torch.randn(3, 1, 1, 36, 10)
    found = softmax_attention(*rib.join_softmax(q, k, *rib(6, 6, 6)), v)
    assert (found - softmax_attention(q, k, v, bias=target)).abs().max() < 0.03


def test_rib_and_centred_keys_are_efficient_as_they_are_direct_in_every_form():
    image = torch.rand(1, 3, 11, 17, dtype=torch.float64)
    for settings in ({"position": "rib"}, {"centre_keys": True}, {"position": "rib", "centre_keys": True}):
        outputs = []
        for form in ("direct", "efficient", "published"):
            model = build_model("taylorswinir_tiny_x2", window_size=6, attention_form=form, **settings)
            with torch.no_grad():
                outputs.append(stirred(model).double().eval()(image))
        for output in outputs[1:]:
            torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-12)
        with torch.no_grad():
            plain = stirred(build_model("taylorswinir_tiny_x2", window_size=6)).double().eval()(image)
        assert (outputs[0] - plain).abs().max() > 1e-3, settings


def test_centred_keys_of_a_shifted_window_are_those_of_its_region():
    """Which only a rectangle of its own, cut out of the image, can tell without labels."""
    model = build_model("taylorswinir_tiny_x2", window_size=4, centre_keys=True, depths=(2,))
    attention = stirred(model).double().layers[0].residual_group.blocks[1].attn
    x = torch.randn(1, 4, 4, 24, dtype=torch.float64)
    with torch.no_grad():
        found = attention.attend(x)[:, :2, :2]
        q, k, v = attention.qkv(x[:, :2, :2].reshape(1, 1, 4, 24)).unflatten(-1, (3, 3, 8)).unbind(-3)
        q, k, v = (part.transpose(-2, -3) for part in (q, k, v))
        expected = taylor_direct(q, k - k.mean(-2, keepdim=True), v, temperature=attention.temperature)
    torch.testing.assert_close(found, expected.transpose(-2, -3).reshape(1, 2, 2, 24), rtol=0, atol=1e-12)


def test_softmax_refuses_centred_keys_which_it_would_not_see():
    with pytest.raises(ValueError, match="centre_keys must be False with attention 'softmax'"):
        build_model("swinir_tiny_x2", centre_keys=True)
