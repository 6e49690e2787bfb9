"""Position: rotary scores depend on the offset only, norms are kept; LePE convolves each channel."""

import itertools
import math

import pytest
import torch

from taylorir.attention import taylor_direct, taylor_efficient
from taylorir.networks.position import LePE, rope_2d

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
