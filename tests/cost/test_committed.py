"""Committed rows of cost: memory is what the code counts today, to the byte; no time has a single repeat."""

from __future__ import annotations

import dataclasses

import pytest

from taylorir.cost.memory import MemoryPoint, account
from taylorir.rows import read_rows

KEY = [field.name for field in dataclasses.fields(MemoryPoint)]


@pytest.mark.parametrize("file", ["memory_m.csv", "memory_s.csv", "memory_bias.csv"])
def test_a_sample_of_the_rows_is_counted_anew(file):
    rows = read_rows(file)
    sample = rows[rows["lr_size"] <= 96].groupby("mode").sample(3, random_state=0)
    points = [MemoryPoint(**point) for point in sample[KEY].to_dict("records")]
    assert [account(point).total for point in points] == sample["peak_bytes"].tolist()


@pytest.mark.parametrize("file", ["model_speed.csv", "model_speed_intel.csv", "runtime_attention.csv"])
def test_each_time_is_of_several_repeats_and_all_of_one_day(file):
    rows = read_rows(file)
    assert rows.dropna(subset="latency_ms")["repeats"].min() >= 3
    assert rows["date"].nunique() == 1
