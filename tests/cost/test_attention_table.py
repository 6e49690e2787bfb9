"""The table of speed and memory: its columns, arithmetic and command; never how fast this machine is."""

import os
import sys

import pandas as pd
import pytest
import torch

from taylorir.cost import attention_table as attention_benchmark
from taylorir.cost.attention_table import Shape, memory_rows, speed_rows
from taylorir.rows.measured import PROVENANCE_COLUMNS

SMALL = Shape(20, 2, 3, windows=2, forward_bar=2.0)


def test_a_row_for_each_pass():
    rows = speed_rows([SMALL], rounds=3, seconds=0)
    assert rows["pass"].tolist() == ["forward", "forward + backward"]
    assert rows[["windows", "num_heads", "num_tokens", "head_dim"]].values.tolist() == [[2, 2, 20, 3]] * 2
    assert rows["bar"].tolist()[0] == 2.0 and pd.isna(rows["bar"][1])
    assert set(PROVENANCE_COLUMNS) <= set(rows)
    for name in ("other", "taylor"):
        assert (rows[f"{name}_ms_q20"] <= rows[f"{name}_ms"]).all()
        assert (rows[f"{name}_ms"] <= rows[f"{name}_ms_q80"]).all()


def test_ratio_is_of_medians(monkeypatch):
    times = {"sdpa": [8.0, 1.0, 6.0], "taylor": [2.0, 3.0, 9.0]}
    times |= {"product": [1.0, 4.0, 2.0], "copy": [5.0, 4.0, 1.0]}

    def by_turns(calls, rounds, seconds=0.0):
        return {call: times[call if call in times else call[0]] for call in calls}

    monkeypatch.setattr(attention_benchmark, "PEAK_SIDE", 10)
    monkeypatch.setattr(attention_benchmark, "COPIED_NUMBERS", 10)
    monkeypatch.setattr(attention_benchmark, "_by_turns", by_turns)
    rows = speed_rows([SMALL])
    assert rows["ratio"].tolist() == [2.0, 2.0]
    assert rows["other_ms"].tolist() == [6000.0, 6000.0]
    # 2 windows, 2 heads, 20 tokens, of 2 x 10 features x 4 columns; 1000 products in 2 seconds
    forward = 2 * (2 * 2 * 20) * (2 * 10 * 4) / (2 * 1000 / 2 * 3)
    assert rows["share"].tolist() == pytest.approx([forward, 3 * forward])
    assert rows["peak_gflops"].tolist() == pytest.approx([1e-6, 1e-6])
    assert rows["memory_gbs"].tolist() == pytest.approx([2e-8, 2e-8])  # read and written: 80 bytes in 4 s


@pytest.mark.parametrize(
    ("method", "products"),
    [
        ("taylor", 2 * 10 * 4),
        ("plain", 2 * 10 * 4),
        ("published", 2 * (9 + 3) * 4),
        ("sdpa", 2 * 3 * 20),
        ("softmax", 2 * 3 * 20),
    ],
)
def test_operations_by_hand(method, products):
    forward = 2 * products * (2 * 2 * 20)
    counted = attention_benchmark.counted_operations
    assert counted(SMALL, False, method) == forward and counted(SMALL, True, method) == 3 * forward
    few = Shape(5, 1, 10)
    assert counted(few, False) == 2 * 5 * 5 * (2 * 11 - 1)  # the direct form, as 5 tokens are few


def test_calls_take_turns_of_a_hundredth_of_a_second(monkeypatch):
    order, clock = [], [0.0]

    def call(name, seconds):
        order.append(name)
        clock[0] += seconds

    monkeypatch.setattr(attention_benchmark.time, "perf_counter", lambda: clock[0])
    calls = {"short": lambda: call("short", 0.004), "long": lambda: call("long", 0.5)}
    times = attention_benchmark._by_turns(calls, rounds=2)
    before = ["short"] * 2 + ["long"] * 2
    assert order == before + (["short"] * 3 + ["long"]) * 2
    assert times["short"] == pytest.approx([0.004] * 2)
    assert times["long"] == pytest.approx([0.5] * 2)


def test_registers_are_timed_without_the_tile_unit(monkeypatch):
    monkeypatch.delenv("TAYLORIR_TILES", raising=False)
    asked = []

    def attention(q, k, v):
        asked.append(os.environ.get("TAYLORIR_TILES"))
        return q * k * v

    monkeypatch.setattr(attention_benchmark, "taylor_attention", attention)
    monkeypatch.setattr(attention_benchmark, "PEAK_SIDE", 10)
    monkeypatch.setattr(attention_benchmark, "COPIED_NUMBERS", 10)
    speed_rows([SMALL], against="registers", rounds=1, seconds=0)
    assert asked[:2] == ["0"] * 2 and set(asked) == {"0", None}  # theirs is called first


def test_memory_of_the_direct_form_by_hand():
    shape = Shape(100, 6, 10)  # below the crossover, 111
    row = memory_rows([shape]).iloc[0]
    token_bytes = 6 * 100 * 4
    assert row["saved_mib"] * 2**20 == pytest.approx(token_bytes * (4 * 10 + 3), abs=100)
    assert row["forward_transient_mib"] * 2**20 >= 6 * 100 * 100 * 4


@pytest.mark.parametrize("rounds", ["0", "x"])
def test_wrong_rounds_are_named(rounds, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attention_benchmark", "--rounds", rounds])
    with pytest.raises(SystemExit) as exit:
        attention_benchmark.main()
    assert exit.value.code == 2
    assert "--rounds" in capsys.readouterr().err


def test_command_prints_and_writes(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(attention_benchmark, "SHAPES", (SMALL,))
    monkeypatch.setattr(attention_benchmark, "PUBLISHED_SHAPES", (SMALL,))
    monkeypatch.setattr(attention_benchmark, "PLAIN_SHAPES", (SMALL,))
    monkeypatch.setattr(attention_benchmark, "SOFTMAX_SHAPES", (SMALL,))
    monkeypatch.setattr(attention_benchmark, "REGISTER_SHAPES", (SMALL,))
    monkeypatch.setattr(attention_benchmark, "uses_tiles", lambda: True)
    monkeypatch.setattr(attention_benchmark, "PEAK_SIDE", 10)
    monkeypatch.setattr(attention_benchmark, "COPIED_NUMBERS", 10)
    monkeypatch.setattr(attention_benchmark, "GROWTH_SHAPES", (SMALL, Shape(40, 2, 3, windows=2)))
    monkeypatch.setattr(attention_benchmark.memory_rows, "__defaults__", ((SMALL,),))
    monkeypatch.setattr(
        sys, "argv", ["attention_benchmark", "--rounds", "1", "--out", str(tmp_path / "a" / "b.csv")]
    )
    threads = torch.get_num_threads()
    attention_benchmark.main()
    assert torch.get_num_threads() == threads
    assert pd.read_csv(tmp_path / "a" / "b.csv").against.tolist() == [
        "sdpa",
        "sdpa",
        "softmax",
        "softmax",
        "plain",
        "plain",
        "published",
        "registers",
        "registers",
    ]
    attention_benchmark.SHAPES = (SMALL, SMALL)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--against", "sdpa"])
    attention_benchmark.main()  # new rows in the place of the old ones of this comparison
    against = pd.read_csv(tmp_path / "a" / "b.csv").against.tolist()
    kept = ["softmax", "softmax", "plain", "plain", "published", "registers", "registers"]
    assert against == kept + ["sdpa"] * 4
    printed = capsys.readouterr().out
    assert "forward + backward" in printed and "saved_mib" in printed and "ms_36864" in printed
