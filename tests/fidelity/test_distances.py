"""Distances between softmax and Taylor softmax by hand; their bounds by search for a row that breaks them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from taylorir.attention import softmax_attention, taylor_direct
from taylorir.fidelity import distances as fidelity, rows as fidelity_rows

ORDERS = (2, 4, 6)
LARGEST = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)


def rows_of_scores(m: float, seed: int = 0) -> list[torch.Tensor]:
    """Rows in [-m, m] of many kinds: spread evenly, clumped, at the ends only, one alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for num_tokens in (2, 3, 17, 111, 2304):
        uniform = 2 * torch.rand(20, num_tokens, generator=generator, dtype=torch.float64) - 1
        rows += [
            m * uniform,
            m * uniform.sign(),
            m * (uniform * 3).clamp(-1, 1),
            m * uniform.abs(),
            -m * uniform**2,
        ]
        alone = torch.full((2, num_tokens), m, dtype=torch.float64)
        alone[0, 0] = alone[1, 1:] = -m
        rows.append(alone)
    return rows


# --- weights and distances, by hand ---------------------------------------------------------------


def test_weights_by_hand():
    scores = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 2.5, 0.5], dtype=torch.float64) / 4
    torch.testing.assert_close(fidelity.taylor_weights(scores), expected, rtol=0, atol=1e-15)
    fourth = torch.tensor(
        [1.0, 65 / 24, 9 / 24], dtype=torch.float64
    )  # 1 + 1 + 1/2 + 1/6 + 1/24, and alternating
    torch.testing.assert_close(
        fidelity.taylor_weights(scores, order=4), fourth / fourth.sum(), rtol=0, atol=1e-15
    )
    e = math.e
    soft = torch.tensor([1, e, 1 / e], dtype=torch.float64) / (1 + e + 1 / e)
    torch.testing.assert_close(fidelity.softmax_weights(scores), soft, rtol=0, atol=1e-15)


def test_weights_are_those_of_the_attention():
    q, k, v = (x.double() for x in fidelity_rows.gaussian_qkv(63, head_dim=10, num_heads=2))
    for order in ORDERS:
        weights = fidelity.taylor_weights(1.5 * fidelity.cosine_scores(q, k), order=order)
        expected = taylor_direct(q, k, v, temperature=1.5, order=order)
        torch.testing.assert_close(weights @ v, expected, rtol=0, atol=1e-12)
    soft = fidelity.softmax_weights(fidelity.scaled_scores(q, k))
    torch.testing.assert_close(soft @ v, softmax_attention(q, k, v), rtol=0, atol=1e-12)


def test_distances_by_hand():
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]], dtype=torch.float64)
    assert fidelity.total_variation(p, t).tolist() == [0.25, 0.5]
    assert fidelity.kl_divergence(p, t).tolist() == pytest.approx([0.5 * math.log(2), math.log(2)], abs=1e-15)
    assert fidelity.entropy(p).tolist() == pytest.approx([math.log(2), 0.0], abs=1e-15)


def test_top_k_overlap_by_hand():
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    t = torch.tensor([0.1, 0.3, 0.4, 0.2])
    assert [float(fidelity.top_k_overlap(p, t, k)) for k in (1, 2, 3, 4)] == pytest.approx(
        [0, 1 / 2, 2 / 3, 1]
    )
    with pytest.raises(ValueError, match=r"k: got 5, expected 1\.\.4"):
        fidelity.top_k_overlap(p, t, 5)


def test_output_error_by_hand():
    v = torch.tensor([[3.0], [0.0], [0.0]], dtype=torch.float64)  # mean 1; distances 2, 1, 1: spread sqrt(2)
    p = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)  # gives 3
    uniform = torch.full((1, 3), 1 / 3, dtype=torch.float64)  # gives 1
    halfway = (p + uniform) / 2  # gives 2
    assert fidelity.output_error(p, uniform, v).tolist() == pytest.approx([2**0.5])
    assert fidelity.output_error(p, halfway, v).tolist() == pytest.approx([0.5**0.5])
    assert fidelity.output_error(uniform, uniform, v).tolist() == [0.0]
    assert fidelity.output_error(p, uniform, torch.ones_like(v)).tolist() == [0.0]


def test_output_error_does_not_divide_by_almost_nothing():
    """Of a softmax that is all but uniform, a wrong output is small, not huge."""
    v = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)  # spread 1
    almost = torch.tensor([[0.5 + 1e-9, 0.5 - 1e-9]], dtype=torch.float64)
    other = torch.tensor([[0.51, 0.49]], dtype=torch.float64)
    assert fidelity.output_error(almost, other, v).tolist() == pytest.approx([0.02], rel=1e-6)


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("m", LARGEST)
def test_bounds_hold(m, order):
    bound, kl_bound = fidelity.total_variation_bound(m, order=order), fidelity.kl_bound(m, order=order)
    for scores in [*rows_of_scores(m), fidelity.worst_case_scores(m, 2304, order=order)]:
        p, t = fidelity.softmax_weights(scores), fidelity.taylor_weights(scores, order=order)
        assert float(fidelity.total_variation(p, t).max()) <= bound + 1e-13
        assert float(fidelity.kl_divergence(p, t).max()) <= kl_bound + 1e-13
        assert float(fidelity.kl_divergence(t, p).max()) <= kl_bound + 1e-13


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("m", (0.5, 1.0, 2.0))
def test_total_variation_bound_is_reached(m, order):
    scores = fidelity.worst_case_scores(m, 20000, order=order)
    assert float(scores.abs().max()) == m
    p, t = fidelity.softmax_weights(scores), fidelity.taylor_weights(scores, order=order)
    assert float(fidelity.total_variation(p, t)) >= 0.9999 * fidelity.total_variation_bound(m, order=order)


def test_bound_by_hand():
    root = math.sqrt(math.e**2 / 5)  # T(1) = 5/2, T(-1) = 1/2
    assert float(fidelity.total_variation_bound(1.0)) == pytest.approx((root - 1) / (root + 1), abs=1e-15)
    assert float(fidelity.total_variation_bound(0.0)) == 0
    for order in ORDERS:  # ln rho is 2 m^(k+1) / (k+1)! for small m
        small = 0.05 ** (order + 1) / (2 * math.factorial(order + 1))
        assert float(fidelity.total_variation_bound(0.05, order=order)) == pytest.approx(small, rel=2e-3)
    curve = fidelity.total_variation_bound(np.linspace(0, 12, 400))
    assert (np.diff(curve) >= 0).all() and curve[-1] < 1


def test_kl_bound_is_continuous_and_small_like_the_square():
    s = np.array([0.0999e-2, 0.1001e-2])  # either side of the switch to the series
    m = (3 * s) ** (1 / 3)
    values = fidelity.kl_bound(m)
    assert values == pytest.approx(fidelity.log_spread(m) ** 2 / 8, rel=1e-3)


def test_score_change_bound_holds_and_is_reached():
    generator = torch.Generator().manual_seed(0)
    for size in (0.1, 1.0, 5.0):
        x = 3 * torch.randn(50, 111, generator=generator, dtype=torch.float64)
        change = size * (2 * torch.rand(50, 111, generator=generator, dtype=torch.float64) - 1)
        moved = fidelity.total_variation(x.softmax(-1), (x + change).softmax(-1))
        assert float(moved.max()) <= fidelity.score_change_bound(size, -size)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)  # two keys that change places meet it
    moved = fidelity.total_variation(x.softmax(-1), x.flip(-1).softmax(-1))
    assert float(moved) == pytest.approx(float(fidelity.score_change_bound(1.0, -1.0)), abs=1e-15)


def test_weight_ratios():
    assert fidelity.max_weight_ratio(1.0) == pytest.approx(5.0, abs=1e-12)
    assert fidelity.max_weight_ratio(3.0) == pytest.approx(8.5 / 0.5, abs=1e-12)
    assert fidelity.max_weight_ratio(0.5) == pytest.approx((1 + 0.5 + 0.125) / (1 - 0.5 + 0.125), abs=1e-12)
    assert fidelity.max_weight_ratio(1.0, order=None) == pytest.approx(math.e**2)
    for order in ORDERS:
        for temperature in (0.5, 1.0, 2.0, 5.0):
            scores = torch.linspace(-temperature, temperature, 20001, dtype=torch.float64)
            weights = fidelity.taylor_weights(scores, order=order)
            found = float(weights.max() / weights.min())
            assert fidelity.max_weight_ratio(temperature, order=order) == pytest.approx(found, rel=1e-6)


def test_where_it_stops_being_monotone():
    assert fidelity.monotone_from(2) == pytest.approx(-1.0, abs=1e-12)
    three_apart = fidelity.taylor_weights(torch.tensor([-3.0, 1.0], dtype=torch.float64))
    assert three_apart.tolist() == [0.5, 0.5]
    for order in ORDERS:
        least = fidelity.monotone_from(order)
        x = torch.tensor([least - 0.2, least - 0.1, least, least + 0.1, least + 0.2], dtype=torch.float64)
        steps = fidelity.taylor_weights(x, order=order).diff()
        assert (steps[:2] < 0).all() and (steps[2:] > 0).all()


def test_order_of_keys_is_kept_above_minus_one_and_lost_below():
    x = torch.linspace(-1, 3, 50, dtype=torch.float64)[
        torch.randperm(50, generator=torch.Generator().manual_seed(0))
    ]
    for k in (1, 5, 50):
        overlap = fidelity.top_k_overlap(fidelity.softmax_weights(x), fidelity.taylor_weights(x), k)
        assert float(overlap) == pytest.approx(1.0)
    low = torch.tensor([0.5, 0.0, -3.0], dtype=torch.float64)
    assert (
        float(fidelity.top_k_overlap(fidelity.softmax_weights(low), fidelity.taylor_weights(low), 1)) == 0.0
    )


# --- rows -----------------------------------------------------------------------------------------


def test_rows():
    q, k, v = fidelity_rows.gaussian_qkv(63, head_dim=10, num_heads=2, seed=3)
    rows = fidelity_rows.fidelity_rows(
        q, k, v, source="normal", temperatures=(1.0, 4.0), orders=(2, 4), num_queries=63
    )
    assert rows[["temperature", "order"]].values.tolist() == [[1, 2], [1, 4], [4, 2], [4, 4]]
    assert (rows.total_variation <= rows.total_variation_max).all()
    assert (rows.total_variation_max <= rows.total_variation_bound).all()
    p = fidelity.softmax_weights(4 * fidelity.cosine_scores(q.double(), k.double()))
    t = fidelity.taylor_weights(4 * fidelity.cosine_scores(q.double(), k.double()), order=4)
    assert rows.total_variation[3] == pytest.approx(float(fidelity.total_variation(p, t).mean()), rel=1e-12)
    assert rows.total_variation_max[3] == pytest.approx(
        float(fidelity.total_variation(p, t).max()), rel=1e-12
    )
    assert rows.entropy_taylor[3] == pytest.approx(
        float(fidelity.entropy(t).mean()) / math.log(63), rel=1e-12
    )
    scaled = fidelity_rows.fidelity_rows(q, k, v, source="normal", reference="scaled", orders=(2,))
    assert (
        scaled.total_variation_bound.isna().all()
        and float(scaled.total_variation[0]) > rows.total_variation[0]
    )
    with pytest.raises(ValueError, match="reference: got 'dot'"):
        fidelity_rows.fidelity_rows(q, k, v, source="normal", reference="dot")


def test_worst_case_rows():
    rows = fidelity_rows.worst_case_rows(2304, (0.5, 1.0), orders=(2, 4))
    assert rows[["order", "max_score"]].values.tolist() == [[2, 0.5], [2, 1], [4, 0.5], [4, 1]]
    assert rows.total_variation_max[1] == pytest.approx(float(fidelity.total_variation_bound(1.0)), rel=1e-3)


def test_scenes_by_hand():
    rows = fidelity_rows.scene_rows(1.0, 3).set_index("key")
    e = math.e
    soft = {"spread": e / (e + 1 + 1 / e), "match": e / (e + 2), "worst": e / (e + 2 / e)}
    taylor = {
        "spread": 2.5 / (2.5 + 1 + 0.5),
        "match": 2.5 / 4.5,
        "worst": 2.5 / 3.5,
    }  # worst: two of three low
    for key, row in rows.iterrows():
        assert (row.softmax, row.taylor) == pytest.approx((soft[key], taylor[key]))
    assert rows.apart["match"] == pytest.approx(soft["match"] - taylor["match"])
    assert rows.apart["worst"] == rows.apart.max() <= fidelity.total_variation_bound(1.0)


def test_weight_curves_fall_and_average_to_one():
    q, k, _ = fidelity_rows.gaussian_qkv(64, head_dim=10, num_heads=2)
    curves = fidelity_rows.weight_curves(q, k, num_points=64)
    for _, curve in curves.groupby("weights"):
        assert (curve.weight.diff().dropna() <= 1e-12).all()
        assert curve.weight.mean() == pytest.approx(1.0, abs=1e-12)


class Attention(nn.Module):
    """As little as :func:`collect_qkv` asks for."""

    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(3, 12, bias=False)

    def forward(self, tokens):
        return tokens


def test_collect_qkv_by_hand():
    model = nn.Sequential(Attention())
    image = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    caught = fidelity_rows.collect_qkv(model, image.permute(0, 2, 3, 1))
    assert list(caught) == ["0"] and caught["0"].shape == (3, 2, 2, 7, 9, 2)
    tokens = image[1, :, 4:6, 4:8].flatten(1).T  # the last of 3 x 2 windows of the second image, row by row
    for part, found in enumerate(fidelity_rows.cut_windows(caught["0"], 2, 4)):
        assert found.shape == (2 * 6, 2, 8, 2)
        for head in range(2):  # rows of the weight: q, k, v; within each, head by head
            start = 4 * part + 2 * head
            torch.testing.assert_close(found[-1, head], tokens @ model[0].qkv.weight[start : start + 2].T)
    assert not model[0]._forward_pre_hooks
    with pytest.raises(ValueError, match="Linear has no attention"):
        fidelity_rows.collect_qkv(nn.Linear(2, 2), image)
    with pytest.raises(ValueError, match=r"window: 8x6 does not fit into \[7, 9\] tokens"):
        fidelity_rows.cut_windows(caught["0"], 8, 6)


@pytest.mark.parametrize("order", (0, 1, 3, -2))
def test_odd_orders_are_refused(order):
    with pytest.raises(ValueError, match="order: got"):
        fidelity.taylor_weights(torch.zeros(3), order=order)
    with pytest.raises(ValueError, match="order: got"):
        fidelity.total_variation_bound(1.0, order=order)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"largest_score: got -1\.0"):
        fidelity.total_variation_bound(-1.0)
    with pytest.raises(ValueError, match="temperature: got 0"):
        fidelity.max_weight_ratio(0)
    with pytest.raises(ValueError, match="num_tokens: got 1"):
        fidelity.worst_case_scores(1.0, 1)
