"""The accounting of memory: hand-computed events, the whole network against its parts, fake against real."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from taylorir.cost import memory_rows, tracing
from taylorir.cost.allocations import Events, cuda_attention_kernels, record
from taylorir.cost.flex_attention import as_with_flex_attention
from taylorir.cost.memory import (
    COUNTED_ONLY,
    NETWORK_METHODS,
    MemoryPoint,
    _trace,
    account,
    build,
    trace_step,
)
from taylorir.cost.memory_real import in_fresh_process, real_peak
from taylorir.cost.memory_rows import (
    largest,
    limit_rows,
    memory_points,
    memory_table as make_table,
    with_savings,
)
from taylorir.cost.tracing import run_once
from taylorir.networks.original import as_in_original
from taylorir.networks.variants import build_model

KIB = 1024


def deltas(trace):
    return trace.events().delta.tolist()


# --- allocations: every number by hand -------------------------------------------------------------


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_events_of_three_operators(fake):
    with FakeTensorMode() if fake else torch.enable_grad(), record() as trace:
        a = torch.ones(256)  # 1024 bytes
        b = a.view(16, 16) * 2  # the view is free, the product 1024
        del a
        c = b[0].double()  # the row is a view; 16 x 8 bytes
        assert deltas(trace) == [1024, 1024, -1024, 128]
        del b, c
        assert deltas(trace)[4:] == [-1024, -128]


def test_what_existed_is_not_counted_and_what_autograd_keeps_is():
    x = torch.ones(256, requires_grad=True)
    with record([x]) as trace:
        y = x.exp()  # kept for the gradient: its own result
        z = y.exp()  # likewise
        del y
        assert deltas(trace) == [1024, 1024]
        z.sum().backward()  # 4 bytes for the sum
        del z
        events = trace.events()
    assert events.delta.sum() == 1024  # the gradient alone is left
    assert trace.number_of(x.grad) in events.alive_at(len(events.delta))


def test_alive_at_a_position():
    events = Events(np.array([8, 4, -8, 2]), np.array([0, 1, 0, 2]))
    assert events.alive_at(2) == {0, 1}
    assert events.alive_at(4) == {1, 2}


def test_a_repeated_round_counts_what_is_kept_once_more_each_time():
    kept = []
    with record() as trace:
        left = torch.ones(2)  # 8 bytes, set anew in each round
        starts = []
        for _ in range(3):
            starts.append(trace.position)
            kept.append(torch.ones(4))  # 16 bytes, kept
            left = torch.ones(2)
        trace.repeat(*starts[1:], 5)
        curve = np.cumsum(trace.events().delta)
        assert curve[-1] == 8 + 8 * 16
        assert curve.max() == 8 + 8 + 8 * 16  # the new ``left`` exists before the old one goes
        kept.clear()
        assert np.cumsum(trace.events().delta)[-1] == 8
        del left
        assert np.cumsum(trace.events().delta)[-1] == 0


def test_rounds_that_differ_are_refused():
    with record() as trace:
        a = torch.ones(2)
        start = trace.position
        b = torch.ones(3)
        with pytest.raises(ValueError, match="differently"):
            trace.repeat(0, start, 2)
        del a, b


def test_a_template_is_replayed_event_by_event():
    with record() as trace:
        start = trace.position
        scratch = torch.ones(100)
        result = scratch * 2
        del scratch
        template = trace.template(start, [result])
        again = trace.replay(template)
        assert again[0].shape == result.shape
        assert deltas(trace) == 2 * [400, 400, -400]
        again.clear()
        assert deltas(trace)[-1] == -400


def test_operators_on_the_meta_device_are_told_from_an_earlier_run(monkeypatch):
    monkeypatch.setattr(tracing, "_outcomes", {})
    x = torch.empty(4, 6, device="meta")

    def step():
        with record([x], run_once) as trace:
            y = x.mT + 1  # 96 bytes, with the strides of x.mT
            assert y.add_(2) is y  # makes nothing
            assert trace.number_of(y[0]) == trace.number_of(y)  # a view
            z = torch.native_layer_norm(x, [6], None, None, 1e-5)  # 96 bytes, and twice 16
            return deltas(trace), y.stride(), [(tuple(part.shape), part.stride()) for part in z]

    first = step()
    assert first == ([96, 96, 16, 16], (1, 6), [((4, 6), (6, 1)), ((4, 1), (1, 1)), ((4, 1), (1, 1))])
    seen = dict(tracing._outcomes)
    assert step() == first
    assert tracing._outcomes == seen
    assert list(seen.values()).count(None) == 2  # x.mT and y[0] are views, made anew each time


# --- the kernels that fused attention runs on a GPU ------------------------------------------------


def attention_peak(dtype, width, *, bias):
    with FakeTensorMode(), cuda_attention_kernels():
        q = torch.empty(1, 2, 64, width, dtype=dtype, requires_grad=True)
        b = torch.empty(1, 2, 64, 64, dtype=dtype, requires_grad=True) if bias else None
        with record([q] if b is None else [q, b]) as trace:
            y = nn.functional.scaled_dot_product_attention(q, q, q, b)
            assert y.shape == q.shape
            return deltas(trace)


def test_memory_efficient_attention_holds_its_output_and_the_log_sum_exp():
    made = attention_peak(torch.float32, 32, bias=True)
    assert made[0] == 2 * 64 * 32 * 4
    assert made[1] == 2 * 64 * 4
    assert sum(made) < 2 * 64 * 64 * 4  # no N x N weights


def test_an_odd_head_width_falls_back_to_n_by_n_weights():
    assert 2 * 64 * 64 * 4 in attention_peak(torch.float32, 30, bias=True)


def test_flash_pads_the_head_width_to_a_multiple_of_8():
    assert attention_peak(torch.bfloat16, 30, bias=False)[:1] == [2 * 64 * 32 * 2]


# --- the original ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 24], ids=["built for it", "another size"])
def test_the_original_computes_what_swinir_does(size):
    torch.manual_seed(0)
    model = build_model("swinir_tiny_x2", window_size=8).eval()
    lr = torch.rand(1, 3, size, size)
    with torch.no_grad():
        expected = model(lr)
        got = as_in_original(model, 16)(lr)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_original_holds_an_index_map_a_block_and_a_mask_a_shifted_one():
    with torch.device("meta"):
        model = build(MemoryPoint("M", "softmax_naive", window_size=48, lr_size=48))
        shifted = build(MemoryPoint("M", "softmax_naive", window_size=48, lr_size=96))
    index = sum(b.nbytes for name, b in model.named_buffers() if name.endswith("relative_position_index"))
    assert index == 36 * 2304**2 * 8  # 1458 MiB
    masks = sum(b.nbytes for name, b in shifted.named_buffers() if name.endswith("attn_mask"))
    assert masks == 18 * 4 * 2304**2 * 4  # 4 windows, float32


def test_the_original_refuses_other_attention():
    with pytest.raises(ValueError, match="taylor"):
        as_in_original(build_model("taylorswinir_tiny_x2"), 16)


# --- points ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("model", "L"), ("method", "fast"), ("mode", "test"), ("upscale", 8), ("lr_size", 0)]
)
def test_a_wrong_point_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        MemoryPoint(**{field: value})


# A training step in full takes seconds: of methods that keep the same kinds of tensors, one.
EXACT = [(method, "infer", False, 12) for method in (*NETWORK_METHODS, *COUNTED_ONLY)] + [
    (method, "train", checkpoint, 8 if checkpoint else 12)
    for method in ("softmax_naive", "softmax_fused", "softmax_flex", "taylor_published", "taylor_efficient")
    for checkpoint in (False, True)
]


@pytest.mark.parametrize(("method", "mode", "checkpoint", "size"), EXACT, ids=map(str, EXACT))
def test_repeating_blocks_and_sharing_tails_is_exact(method, mode, checkpoint, size):
    point = MemoryPoint("S", method, checkpoint, 8, size, 3, mode)
    assert account(point) == account(point, whole=True)


def test_parts_add_up_and_are_what_they_are_called():
    point = MemoryPoint("S", "softmax_flash", False, 8, 8, 2)
    peak = account(point)
    with torch.device("meta"):
        numbers = sum(p.numel() for p in build(point).parameters())
    assert sum(peak.parts.values()) == peak.total
    assert peak.parts["parameters"] == 4 * numbers
    assert peak.parts["optimiser"] == 8 * numbers
    assert peak.parts["data"] == 4 * 3 * (8**2 + 16**2)
    assert account(dataclasses.replace(point, mode="infer")).parts["gradients"] == 0


def test_flex_attention_holds_what_flash_does_and_the_tables_of_the_bias():
    tables = 24 * (15**2 * 6) * 4  # blocks, offsets times heads, float32
    flash, flex = (
        account(MemoryPoint("S", method, False, 8, 8, 2)) for method in ("softmax_flash", "softmax_flex")
    )
    assert flex.parts["parameters"] - flash.parts["parameters"] == tables
    assert flex.parts["optimiser"] - flash.parts["optimiser"] == 2 * tables
    assert flex.parts["saved"] == flash.parts["saved"]
    assert 0 <= flex.parts["gradients"] - flash.parts["gradients"] <= tables


def test_counting_flex_attention_changes_no_output_and_gives_the_tables_a_gradient():
    model = build_model("swinir_tiny_x2", softmax_backend="flash", position="none").eval()
    x = torch.rand(1, 3, 16, 16)
    expected = model(x)
    counted = as_with_flex_attention(model)
    assert torch.equal(counted(x), expected)
    counted(x).sum().backward()
    tables = [p for name, p in counted.named_parameters() if name.endswith("relative_position_bias_table")]
    assert len(tables) == sum(model.config.depths)
    assert all(table.grad.shape == table.shape == (15**2, model.config.num_heads[0]) for table in tables)


def test_at_a_tiny_size_with_checkpointing_the_optimiser_is_the_peak():
    peak = account(MemoryPoint("M", "softmax_flash", True, 8, 8, 2))
    assert peak.phase == "optimiser"
    assert peak.parts["gradients"] == peak.parts["parameters"] == peak.parts["transient"]


@pytest.mark.parametrize("method", NETWORK_METHODS)
@pytest.mark.parametrize(("mode", "checkpoint"), [("train", False), ("train", True), ("infer", False)])
def test_fake_tensors_allocate_what_real_ones_do(method, mode, checkpoint):
    point = MemoryPoint("S", method, checkpoint, 8, 24, 2, mode)
    small = {"depths": (2,)}
    real = trace_step(build(point, **small), point)
    real = trace_step(build(point, **small), point)  # the second time, so that geometry is there already
    fake = _trace(point, (2,), cuda_kernels=False, fake=True)
    expected, got = real.peak(0, 0).total, fake.peak(0, 0).total
    assert abs(got / expected - 1) < 0.01


@pytest.mark.parametrize("method", ["softmax_naive", "taylor_direct", "taylor_published", "taylor_efficient"])
def test_a_real_step_allocates_what_was_accounted_for(method):
    """The allocator's own reports, with the optimiser: nothing of the accounting is in what is measured."""
    point = MemoryPoint("S", method, False, 8, 24, 2)
    torch.manual_seed(0)
    accounted, real = account(point, cuda_kernels=False).total, real_peak(point)
    assert abs(accounted / real.tensors - 1) < 0.01
    assert abs(accounted / real.allocator - 1) < 0.03


def test_running_out_of_memory_is_an_answer():
    assert in_fresh_process(MemoryPoint("S", "taylor_direct", False, 8, 8), limit_gib=2) is not None
    assert in_fresh_process(MemoryPoint("S", "taylor_direct", False, 48, 96), limit_gib=2) is None


def test_any_other_failure_is_an_error():
    with pytest.raises(RuntimeError, match="nowhere"):
        in_fresh_process(MemoryPoint("S", "taylor_efficient", False, 8, 8), device="nowhere")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", NETWORK_METHODS)
def test_cuda_allocates_what_was_accounted_for(method):
    point = MemoryPoint("S", method, False, 16, 48, 2)
    assert abs(account(point).total / in_fresh_process(point, "cuda").allocator - 1) < 0.10


# --- tables ----------------------------------------------------------------------------------------

FEW = [MemoryPoint("S", method, False, 8, 8, 2, "infer") for method in ("softmax_flash", "softmax_naive")]


def test_a_table_is_the_same_bytes_again_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    make_table(FEW, tmp_path / "a.csv")
    seen = []
    real = memory_rows.account
    monkeypatch.setattr(memory_rows, "account", lambda point: seen.append(point) or real(point))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "b.csv.part").write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])  # a run that was killed
    make_table(FEW, tmp_path / "b.csv")
    assert seen == FEW[1:]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert not (tmp_path / "b.csv.part").exists()


def test_a_table_does_not_depend_on_the_order_nor_on_the_processes(tmp_path):
    methods = ["softmax_fused", "taylor_efficient"]
    points = memory_points(models=["S"], methods=methods, windows=[8], lr_sizes=[8], upscales=[2, 3])
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    make_table(points, one, jobs=2)
    make_table(points[::-1], two)
    head, *rows = one.read_text().splitlines()
    assert two.read_text().splitlines() == [head, *rows[::-1]]


def test_the_grid_has_checkpointing_in_training_only():
    points = memory_points(models=["S"], windows=[8], lr_sizes=[48], upscales=[2])
    assert len(points) == len(set(points)) == 3 * len(NETWORK_METHODS)


def rows_of(*peaks):
    base = dataclasses.asdict(MemoryPoint())
    return pd.DataFrame([base | {"method": m, "checkpoint": c, "peak_bytes": b} for m, c, b in peaks])


def test_savings_are_against_the_same_point():
    rows = rows_of(
        ("softmax_naive", False, 400), ("softmax_naive", True, 200), ("taylor_efficient", False, 100)
    )
    assert with_savings(rows, "softmax_naive").saving.tolist() == [0, 0.5, 0.75]
    assert with_savings(rows, "softmax_naive", checkpoint=True).saving.tolist() == [-1, 0, 0.5]
    with pytest.raises(ValueError, match="softmax_flash"):
        with_savings(rows, "softmax_flash")


def test_the_largest_size_is_found(monkeypatch):
    monkeypatch.setattr(memory_rows, "_peak_bytes", lambda p: p.lr_size**2)
    assert largest(MemoryPoint(), "image", 100**2, step=8) == 96
    assert largest(MemoryPoint(), "image", 63, step=8) == 0
    assert largest(MemoryPoint(), "image", 10**12, step=8, limit=1024) == 1024
    monkeypatch.setattr(memory_rows, "_peak_bytes", lambda p: p.window_size**2)
    assert largest(MemoryPoint(), "window", 48**2) == 48
    with pytest.raises(ValueError, match="vary"):
        largest(MemoryPoint(), "batch", 1)


def test_limits_have_a_row_a_budget(monkeypatch):
    monkeypatch.setattr(memory_rows, "_peak_bytes", lambda p: 2**20 * p.lr_size**2)
    rows = limit_rows([MemoryPoint(window_size=24)], budgets_gib=[1, 4])
    assert rows[["vary", "window_size", "budget_gib", "largest"]].values.tolist() == [
        ["window", -1, 1, 32], ["window", -1, 4, 64], ["image", 24, 1, 24], ["image", 24, 4, 48],
    ]  # fmt: skip


# --- the bars of the issue -------------------------------------------------------------------------


def saving(method, baseline, **point):
    ours = account(MemoryPoint("M", method, False, 48, **point)).total
    return 1 - ours / account(MemoryPoint("M", baseline, False, 48, **point)).total


def test_a_training_step_takes_at_least_80_per_cent_less_than_the_original():
    assert saving("taylor_efficient", "softmax_naive", lr_size=48) >= 0.80


def test_inference_at_192_takes_at_least_80_per_cent_less_than_the_original():
    assert saving("taylor_efficient", "softmax_naive", lr_size=192, mode="infer") >= 0.80


def test_without_a_bias_fused_softmax_takes_as_little():
    """The other side: what is saved is saved by not writing out N x N numbers, by whatever attention."""
    assert abs(saving("taylor_efficient", "softmax_flash", lr_size=48)) < 0.20
