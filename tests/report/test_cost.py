"""Figures of memory: lines relative to a baseline, and how all savings are spread, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taylorir.report import cost


def test_memory_relative_to_the_baseline_at_the_same_size():
    rows = pd.DataFrame(
        {
            "method": ["softmax_naive", "softmax_naive", "taylor_published", "taylor_published"],
            "lr_size": [48, 96, 48, 96],
            "peak_bytes": [100, 200, 66, 340],
        }
    )
    axes = cost.plot_relative(rows, "softmax_naive", xlabel="LR").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1, 1], pytest.approx([0.66, 1.7])]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["48", "96"]


def test_savings_are_counted_and_marked():
    savings = pd.Series([0.61, 0.62, -3.0, 0.9])
    figure = cost.plot_savings(savings, {"training": pd.Series([0.34, -0.7])}, {"60 %": 0.6})
    above, below = figure.axes
    heights = {round(bar.get_x(), 2): bar.get_height() for bar in above.patches if bar.get_height()}
    assert heights == {-1.0: 1, 0.6: 2, 0.9: 1} or heights == {-1.0: 1, 0.6: 2, 0.85: 1}
    assert below.lines[0].get_xdata().tolist() == [0.34, -0.7]
    assert [text.get_text() for text in above.texts] == ["60 %"]
    np.testing.assert_allclose(above.lines[0].get_xdata(), 0.6)


def test_the_share_near_a_target():
    savings = pd.Series([0.585, 0.615, 0.63, -1.0])
    assert cost.share_near(savings, 0.6) == 0.5
    assert cost.share_near(savings, 0.6, tolerance=0.04) == 0.75


def test_times_over_swinir_by_hand():
    ours, pytorch = "TaylorSwinIR-S, window 48", "SwinIR-S, window 8, PyTorch's attention"
    timed = {
        ("forward", 192): {
            "SwinIR-S, window 8": 4.0,
            pytorch: 5.0,
            ours: 3.0,
            f"{ours}, attention left out": 2.0,
        },
        ("train", 96): {"SwinIR-S, window 8": 4.0, pytorch: 8.0, ours: 6.0, f"{ours}, ragged": 2.0},
    }
    rows = [(*case, name, ms) for case, times in timed.items() for name, ms in times.items()]
    table = cost.over_swinir(pd.DataFrame(rows, columns=["mode", "lr_size", "network", "latency_ms"]))
    assert table.fillna(-1.0).to_numpy().tolist() == [
        ["forward", 192, "reflect", 0.75, 0.6, 0.4],
        ["train", 96, "reflect", 1.5, 0.75, -1.0],
        ["train", 96, "ragged", 0.5, 0.25, -1.0],
    ]
