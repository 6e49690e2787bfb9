"""Benchmark rows: how a time is taken, what counts as out of memory, operations against formulas by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from taylorir.attention import crossover_memory
from taylorir.cost import timing
from taylorir.cost.flops import (
    FORMS,
    cost_parity,
    counted_flops,
    form_rows,
    held_numbers,
    network_flops,
    parity_rows,
    product_flops,
)
from taylorir.cost.memory import MemoryPoint
from taylorir.cost.runtime import ATTENTION, TimedNetwork, attention_methods, attention_rows, network_rows
from taylorir.cost.timing import time_calls
from taylorir.report.cost import (
    loglog_slope,
    measured_crossover,
    memory_matrix,
    plot_roofline,
    roofline_points,
    slopes,
    under_load,
)

CPU_METHODS = attention_methods("cpu")


class Clock:
    """A clock that each call of the timed function moves by a set number of milliseconds."""

    def __init__(self, monkeypatch, *steps):
        self.now, self.steps, self.calls = 0.0, list(steps), 0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "process_time", lambda: 2 * self.now)

    def build(self):
        return self.run

    def run(self):
        self.now += self.steps[min(self.calls, len(self.steps) - 1)] / 1e3
        self.calls += 1


def test_the_warm_up_is_not_timed_and_quantiles_are_of_the_rest(monkeypatch):
    clock = Clock(monkeypatch, 1000, 10, 20, 30, 40, 50)
    [taken] = time_calls([clock.build], seconds=0, min_repeats=5)
    assert clock.calls == 6
    assert taken.latency_ms == pytest.approx(30)
    assert (taken.latency_ms_p20, taken.latency_ms_p80) == (pytest.approx(18), pytest.approx(42))
    assert taken.cpu_ms == pytest.approx(60)
    assert taken.repeats == 5


def test_repeats_go_on_until_the_time_is_used_up(monkeypatch):
    clock = Clock(monkeypatch, 100)
    assert time_calls([clock.build], seconds=1.05, min_repeats=3)[0].repeats == 11
    assert time_calls([clock.build], seconds=100, max_repeats=7)[0].repeats == 7


def test_calls_take_turns_and_a_very_long_one_runs_once(monkeypatch):
    clock, order = Clock(monkeypatch), []

    def build(name, seconds):
        def run():
            order.append(name)
            clock.now += seconds

        return lambda: run

    timings = time_calls([build("a", 1), build("b", 2), build("slow", 61)], seconds=0, min_repeats=2)
    assert order == ["a", "b", "slow", "a", "b", "a", "b"]
    assert [each.latency_ms for each in timings] == pytest.approx([1000, 2000, 61000])
    assert [each.repeats for each in timings] == [2, 2, 1]


def test_no_repeat_is_refused():
    with pytest.raises(ValueError, match="repeats"):
        time_calls([], min_repeats=0)


@pytest.mark.parametrize("method", CPU_METHODS)
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_each_attention_makes_a_row(method, mode):
    rows = attention_rows(
        [method], [9], head_dim=5, num_heads=2, total_tokens=40, modes=[mode], seconds=0, min_repeats=1
    )
    row = rows.iloc[0]
    assert (row.status, row.batch, row.num_tokens) == ("ok", 4, 9)
    assert row.tokens_per_s == pytest.approx(4 * 2 * 9 / row.latency_ms * 1e3)
    assert {"device", "dtype", "torch", "commit", "seed", "date"} <= set(rows.columns)


def test_the_attentions_agree_as_they_should():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 16, 6) for _ in range(3))
    bias = torch.randn(1, 2, 16, 16)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(
        ATTENTION["softmax_naive"](q, k, v, bias), ATTENTION["softmax_fused"](q, k, v, bias), **close
    )
    flash = ATTENTION["softmax_naive"](q, k, v, torch.zeros_like(bias))
    for method in ("softmax_flash", "softmax_own"):
        torch.testing.assert_close(flash, ATTENTION[method](q, k, v, bias), **close)
    direct = ATTENTION["taylor_direct"](q, k, v, bias)
    for method in ("taylor_published", "taylor_efficient"):
        torch.testing.assert_close(direct, ATTENTION[method](q, k, v, bias), **close)


def test_what_another_device_needs_is_left_out():
    assert set(ATTENTION) - set(CPU_METHODS) == {"taylor_triton", "softmax_flex"}
    assert set(ATTENTION) - set(attention_methods("cuda:0")) == {"softmax_own"}


def test_too_large_and_out_of_memory_are_values_and_other_errors_are_not(monkeypatch):
    rows = attention_rows(["softmax_naive"], [64], num_heads=1, modes=["forward"], max_held_gib=1e-6)
    assert rows.status.tolist() == ["too large"]

    def attend(error):
        def fail(*_):
            raise error

        monkeypatch.setitem(ATTENTION, "taylor_direct", fail)
        return attention_rows(["taylor_direct"], [4], modes=["forward"], seconds=0)

    assert attend(torch.OutOfMemoryError("full")).status.tolist() == ["out of memory"]
    assert attend(RuntimeError("DefaultCPUAllocator: can't allocate memory")).status.tolist() == [
        "out of memory"
    ]
    with pytest.raises(RuntimeError, match="shape"):
        attend(RuntimeError("a wrong shape"))


@pytest.mark.parametrize(("argument", "value"), [("methods", ["fast"]), ("modes", ["sideways"])])
def test_unknown_names_are_refused(argument, value):
    arguments = {"methods": ["taylor_direct"], "num_tokens": [4], "modes": ["forward"]} | {argument: value}
    with pytest.raises(ValueError, match=value[0]):
        attention_rows(**arguments)


def test_networks_make_rows():
    network = TimedNetwork("taylor_efficient", "taylorswinir_tiny_x2", 8, (("attention_form", "efficient"),))
    rows = network_rows([network], [16, 24], modes=["forward", "train"], seconds=0, min_repeats=1)
    assert rows[["lr_size", "mode"]].values.tolist() == [
        [16, "forward"], [16, "train"], [24, "forward"], [24, "train"],
    ]  # fmt: skip
    assert (rows.status == "ok").all()
    assert rows.pixels_per_s.iloc[2] == pytest.approx(24**2 / rows.latency_ms.iloc[2] * 1e3)


# --- operations ------------------------------------------------------------------------------------


def test_formulas_by_hand():
    assert product_flops("softmax_naive", 64, 10) == 2 * (2 * 64 * 64 * 10)  # q k^T and the product with v
    # F = 1 + 10 + 55; state [F, 11] from N tokens, and reading it out for N tokens
    assert product_flops("taylor_efficient", 64, 10) == 2 * (2 * 64 * 66 * 11)
    # d^2 features and d of first order, each with 11 columns, twice
    assert product_flops("taylor_published", 64, 10) == 2 * (2 * 64 * 100 * 11) + 2 * (2 * 64 * 10 * 11)
    with pytest.raises(ValueError, match="flash"):
        product_flops("flash", 1, 1)


def test_numbers_held_by_hand():
    assert held_numbers("taylor_direct", 3, 2) == 3 * 2 + 2 * 3 * 3  # v, scores and weights
    assert held_numbers("taylor_published", 3, 2) == 4 * 3 + 2 * (2 * 3) + 3 * 3 + 4 * 3
    with pytest.raises(ValueError, match="method"):
        held_numbers("softmax_naive", 1, 1)


@pytest.mark.parametrize("d", [1, 10, 30, 64])
def test_the_crossover_of_memory_is_where_as_many_numbers_are_held(d):
    n = crossover_memory(d)
    held = [
        [held_numbers(f"taylor_{form}", tokens, d) for form in ("published", "direct")]
        for tokens in (n - 1, n)
    ]
    assert held[0][0] > held[0][1] and held[1][0] <= held[1][1]


def test_forms_by_formula_by_hand():
    rows = form_rows(8, 10, 3).set_index("method")
    assert len(rows) == 6
    for method in ("softmax_naive", "softmax_fused", "softmax_flash", "taylor_direct"):
        assert rows.operations[method] == 3 * 4 * 64 * 10
    assert rows.operations["taylor_efficient"] == 3 * 4 * 66 * 11
    assert rows.held["taylor_direct"] == 10 * 64 + 2 * 64**2
    assert rows.held.isna().tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("method", FORMS)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (63, 10), (111, 15), (300, 30)])
def test_the_operators_that_run_do_what_the_formula_says(method, tokens, width):
    assert counted_flops(method, tokens, width) == product_flops(method, tokens, width)
    assert counted_flops(method, tokens, width, train=True) > 2 * product_flops(method, tokens, width)


@pytest.mark.parametrize("method", FORMS)
def test_a_network_splits_into_attention_and_the_rest(method):
    parts = network_flops(MemoryPoint("S", method, False, 8, 16, 2, "infer"))
    times = {"taylor_published": 2.5}.get(method, 1)  # in every second block once for each of four regions
    assert parts["attention"] == times * 24 * 6 * 4 * product_flops(method, 64, 10)  # blocks, heads, windows
    assert parts["linear"] == 24 * 2 * 256 * (60 * 180 + 60 * 60 + 2 * 60 * 120)  # qkv, projection, MLP
    # the first one, one a group and one after the body, and the upsampler to 3 x 2 x 2 channels
    assert parts["convolution"] == 2 * 256 * 9 * (3 * 60 + 5 * 60 * 60 + 60 * 12)


def test_the_backward_pass_of_the_layers_takes_twice_the_forward():
    forward, train = (
        network_flops(MemoryPoint("S", "softmax_naive", False, 8, 8, 2, m)) for m in ("infer", "train")
    )
    assert train["attention"] == 3 * forward["attention"]
    assert train["linear"] == 3 * forward["linear"]
    first = 2 * 64 * 9 * 3 * 60  # the image needs no gradient
    assert train["convolution"] == 3 * forward["convolution"] - first


def test_the_window_at_which_softmax_costs_as_much():
    # F (d + 1) / d tokens: 66 x 11 / 10
    assert cost_parity(10) == pytest.approx(math.sqrt(72.6))
    rows = parity_rows([10], [8])
    cost = rows.set_index("method").relative_cost
    assert cost["softmax_naive"] == 1
    assert cost["taylor_efficient"] == pytest.approx(72.6 / 64)


# --- fits ------------------------------------------------------------------------------------------


def test_slope_of_a_power_law():
    n = np.array([64, 256, 1024])
    assert loglog_slope(n, 3e-4 * n**1.5) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two or more"):
        loglog_slope([64], [1.0])
    with pytest.raises(ValueError, match="positive"):
        loglog_slope([64, 128], [1.0, 0.0])


def test_crossover_is_found_between_the_points():
    n = np.array([100.0, 200, 400, 800])
    assert measured_crossover(n, n**2, 300 * n) == pytest.approx(300)
    assert math.isnan(measured_crossover(n, n, 2 * n))
    assert measured_crossover(n, 2 * n, n) == 100


def test_slopes_take_the_large_sizes_only():
    rows = pd.DataFrame(
        {
            "method": "taylor_efficient",
            "mode": "forward",
            "num_tokens": [64, 1024, 4096, 16384],
            "latency_ms": [9.0, 1.0, 4.0, np.nan],
        }
    )
    found = slopes(rows, smallest=1000)
    assert found[["from", "to"]].values.tolist() == [[1024, 4096]]
    assert found.slope.iloc[0] == pytest.approx(1)


def test_the_matrix_has_a_line_a_method_and_a_column_a_size():
    rows = pd.DataFrame(
        {
            "method": ["softmax_flash", "softmax_flash"],
            "checkpoint": [False, False],
            "window_size": [8, 48],
            "peak_memory_mib": [1.0, 2.0],
        }
    )
    matrix = memory_matrix(rows)
    assert list(matrix.columns) == ["method", "8", "48"]
    assert matrix.iloc[0, 1:].tolist() == [1.0, 2.0]


def test_points_of_the_roofline_by_hand():
    shape = {"windows": 2, "num_heads": 3, "num_tokens": 10, "head_dim": 5, "pass": "forward"}
    numbers = 2 * 3 * 10 * 5  # of q; q, k, v and y are 16 bytes each
    rows = pd.DataFrame(
        [
            shape | {"against": "sdpa", "operations": 16e3 * numbers, "taylor_ms": 2.0, "other_ms": 4.0},
            shape | {"against": "softmax", "operations": 1.0, "taylor_ms": 1.0, "other_ms": 2.0},
            shape | {"against": "published", "operations": 1.0, "taylor_ms": 1.0, "other_ms": 8.0},
            shape | {"against": "sdpa", "pass": "forward + backward"},
        ]
    )
    rows["other_operations"], rows["peak_gflops"] = 32e3 * numbers, 4.8
    points = roofline_points(rows).set_index("method")
    assert points.index.tolist() == ["taylor_efficient", "softmax_flash", "softmax_own", "taylor_published"]
    assert points.intensity.tolist() == pytest.approx([1e3, 2e3, 2e3, 2e3])
    assert points.gflops.tolist() == pytest.approx([2.4, 2.4, 4.8, 1.2])
    assert points.share.tolist() == pytest.approx([0.5, 0.5, 1.0, 0.25])
    (axes,) = plot_roofline(points.reset_index(), peak_gflops=4.0, memory_gbs=8.0).axes
    lowest, corner, highest = axes.lines[0].get_xdata()
    assert (lowest, corner, highest) == pytest.approx((0.25, 0.5, 4e3))
    assert axes.lines[0].get_ydata() == pytest.approx([2.0, 4.0, 4.0])


def test_rows_say_under_what_load_they_were_taken():
    rows = pd.DataFrame({"device": ["a", "a"], "load": [0.2, 7.9], "priority": ["real-time", "real-time"]})
    assert under_load(rows).endswith("Measured at priority real-time, under a load of 0 to 8.")
    assert under_load(rows.head(1)).endswith(" under a load of 0.")
