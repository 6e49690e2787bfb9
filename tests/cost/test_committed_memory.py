"""Committed rows of memory are exact, so they equal what the code counts today, byte for byte."""

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
