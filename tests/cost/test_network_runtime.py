"""Rows that compare the times of networks: what is in them, never how fast this machine is."""

import os
import sys

import pandas as pd
import pytest
import torch

from taylorir.cost import network_runtime
from taylorir.cost.network_runtime import BATCH, COMPARED, LEFT_OUT, NETWORKS, compare_networks, with_rows
from taylorir.cost.timing import machine_load
from taylorir.networks import WindowAttention, build_model

SMALL = {
    "one": ("swinir_tiny_x2", {"depths": (1,)}),
    "two": ("taylorswinir_tiny_x2", {"depths": (1,)}),
    "three": ("taylorswinir_tiny_x2", {"depths": (1,), "border": "ragged"}),
}


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_row_for_each_network(mode):
    rows = compare_networks(list(SMALL), mode, 20, batch=2, repeats=2, threads=1, networks=SMALL)
    assert rows.network.tolist() == ["one", "two", "three"]
    assert rows.border.tolist() == ["reflect", "reflect", "ragged"]
    assert rows.padded.tolist() == pytest.approx([24**2 / 20**2, 32**2 / 20**2, 1.0])
    assert rows.over_first.tolist() == pytest.approx((rows.latency_ms / rows.latency_ms[0]).tolist())
    assert (rows.latency_ms_p20 <= rows.latency_ms_p80).all() and (rows.latency_ms_p20 > 0).all()
    assert set(rows.repeats) == {2} and set(rows.batch) == {2} and set(rows["mode"]) == {mode}


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="forward, train"):
        compare_networks(["one"], "test", 8, networks=SMALL)


def test_what_is_compared_exists_and_begins_with_window_8():
    assert set(BATCH) <= set(COMPARED)
    for names in COMPARED.values():
        first = build_model(NETWORKS[names[0]][0], **NETWORKS[names[0]][1]).config
        assert (first.attention, first.window_size, first.softmax_backend) == ("softmax", 8, "fused")
        assert len(set(names)) == len(names)
        assert {name.removesuffix(LEFT_OUT) for name in names} <= set(NETWORKS)


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_with_its_attention_left_out_a_network_gives_v_in_its_place(name, monkeypatch):
    """So queries and keys play no part, and none of its functions is called."""
    model, whole = (network_runtime._build(name + ending, SMALL).eval() for ending in (LEFT_OUT, ""))
    whole.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 20, 20)
    with torch.inference_mode():
        expected = model(images)
        assert not torch.equal(whole(images), expected)
        monkeypatch.setattr("taylorir.networks.window_attention.softmax_fused", None)
        monkeypatch.setattr("taylorir.networks.taylorswinir._FORMS", {})
        for module in model.modules():
            if isinstance(module, WindowAttention):
                module.qkv.weight[: -model.config.embed_dim].normal_()
        assert torch.equal(model(images), expected)


def test_new_rows_take_the_place_of_those_of_their_mode_and_size():
    def rows(*cases):
        return pd.DataFrame(cases, columns=["mode", "lr_size", "latency_ms"])

    stored = rows(("forward", 48, 1.0), ("forward", 96, 2.0), ("train", 48, 3.0))
    found = with_rows(stored, rows(("forward", 48, 4.0), ("forward", 48, 5.0)))
    expected = [["forward", 48, 4.0], ["forward", 48, 5.0], ["forward", 96, 2.0], ["train", 48, 3.0]]
    assert found.values.tolist() == expected


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such call")
def test_rows_say_how_busy_the_machine_was(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0.0, 0.0))
    for scheduler, priority in ((os.SCHED_FIFO, "real-time"), (os.SCHED_OTHER, "normal")):
        monkeypatch.setattr(os, "sched_getscheduler", lambda _, scheduler=scheduler: scheduler)
        assert machine_load() == {"load": 3.5, "priority": priority}


def test_command_stores_and_prints(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(network_runtime, "COMPARED", {("forward", 8): ("one", "two")})
    monkeypatch.setattr(
        compare_networks, "__kwdefaults__", compare_networks.__kwdefaults__ | {"networks": SMALL}
    )
    out = tmp_path / "rows.csv"
    arguments = ["network_runtime", "forward", "8", "--repeats", "1", "--threads", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    for _ in range(2):
        network_runtime.main()
        assert pd.read_csv(out).network.tolist() == ["one", "two"]
    assert "over_first" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["network_runtime", "forward", "9"])
    with pytest.raises(SystemExit):
        network_runtime.main()
    assert "size must be one of 8, got 9" in capsys.readouterr().err
