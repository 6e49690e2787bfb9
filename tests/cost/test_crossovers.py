"""The crossover is where two curves of times meet."""

import math
import os
import sys

import pandas as pd
import pytest

from taylorir.cost import crossovers


@pytest.fixture
def quadratic(monkeypatch):
    """The direct form takes N / 200 times as long."""
    monkeypatch.setattr(crossovers, "_gain", lambda tokens, *_: math.log(tokens / 200))
    monkeypatch.setattr(crossovers, "uses_tiles", lambda: False)


@pytest.mark.usefixtures("quadratic")
def test_the_times_meet():
    row = crossovers.crossover_rows([20]).iloc[0]  # N0 is 421, and 105 to 589 are timed
    assert (row.head_dim, row.num_tokens) == (20, 200)
    assert crossovers.crossover_rows([40]).num_tokens[0] == 410  # the nearest: 1641 / 4


@pytest.mark.usefixtures("quadratic")
def test_the_command_writes_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crossovers.crossover_rows, "__defaults__", ([20, 21],))
    monkeypatch.setattr(sys, "argv", ["crossovers", "--out", str(tmp_path / "x.csv")])
    crossovers.main()
    assert pd.read_csv(tmp_path / "x.csv").num_tokens.tolist() == [200, 200]
    assert "num_tokens" in capsys.readouterr().out


def test_a_tile_unit_is_measured_with_and_without(monkeypatch):
    monkeypatch.setattr(crossovers, "uses_tiles", lambda: True)
    asked = []

    def gain(tokens, *_):
        asked.append(os.environ["TAYLORIR_TILES"])
        return math.log(tokens / (100 if asked[-1] == "1" else 200))

    monkeypatch.setattr(crossovers, "_gain", gain)
    monkeypatch.delenv("TAYLORIR_TILES", raising=False)
    rows = crossovers.crossover_rows([15])
    assert rows[["tiles", "num_tokens"]].to_numpy().tolist() == [[False, 200], [True, 100]]
    assert "TAYLORIR_TILES" not in os.environ
