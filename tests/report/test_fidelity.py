"""Crossovers read off measured times, by hand; each figure draws what it is given."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from taylorir.report import fidelity as report_fidelity


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def timings() -> pd.DataFrame:
    times = {
        "taylor_direct": [1, 4, 16],
        "taylor_efficient": [2, 4 / math.sqrt(2), 8],
        "taylor_published": [2, 8, 32],
    }
    return pd.DataFrame(
        [
            {"head_dim": 10, "num_tokens": n, "method": method, "latency_ms": latency}
            for method, latencies in times.items()
            for n, latency in zip((64, 128, 256), latencies, strict=True)
        ]
    )


def test_crossovers_by_hand():
    ratios = report_fidelity.crossover_ratios(timings())
    ours = ratios[ratios.method == "taylor_efficient"]
    assert ours.ratio.tolist() == pytest.approx([0.5, math.sqrt(2), 2])
    found = report_fidelity.measured_crossovers(ratios).set_index("method").crossover
    # ln ratio goes from -ln 2 to ln 2 / 2, so it is 0 at two thirds of the way from 64 to 128
    assert found["taylor_efficient"] == pytest.approx(64 * 2 ** (2 / 3))
    assert math.isnan(found["taylor_published"])
    always = report_fidelity.measured_crossovers(ours[ours.num_tokens > 64])
    assert always.crossover.tolist() == [128]


def test_figures_draw_their_rows():
    ratios = report_fidelity.crossover_ratios(timings())
    figure = report_fidelity.plot_crossovers(ratios, pd.DataFrame({"head_dim": [10], "crossover": [111.0]}))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["d = 10, ours"].get_ydata(), [0.5, math.sqrt(2), 2])

    points = pd.DataFrame(
        {"source": ["a", "b"], "order": 2, "max_score": [1.0, 2.0], "total_variation_max": [0.01, 0.1]}
    )
    curve = pd.DataFrame({"order": 2, "max_score": [1.0, 2.0], "total_variation_bound": [0.1, 0.4]})
    figure = report_fidelity.plot_total_variation_bound(points, curve)
    assert [line.get_label() for line in figure.axes[0].lines] == ["bound", "a", "b"]

    rows = pd.DataFrame({"temperature": [1, 1, 2], "order": 2, "kl": [0.1, 0.3, 0.5]})
    figure = report_fidelity.plot_fidelity(rows, {"kl": "KL"})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.2, 0.5])

    curves = pd.DataFrame({"weights": "Taylor, order 2", "rank": [0.0, 1.0], "weight": [2.0, 0.5]})
    figure = report_fidelity.plot_weight_curves({"one": curves, "two": curves})
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"] or figure.axes[0].get_title(
        loc="left"
    ) == "one"

    errors = pd.DataFrame(
        {
            "dtype": "float16",
            "form": "direct",
            "quantity": "output",
            "num_tokens": [16, 32],
            "error": [1e-3, math.inf],
        }
    )
    figure = report_fidelity.plot_numerics(errors)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [1e-3])
    assert len(report_fidelity.plot_polynomials().axes) == 2


def test_the_legend_of_precisions_names_each_dtype_and_each_form_once():
    forms = list(report_fidelity.FORM_DASHES)
    rows = [(dtype, form, "output", 16, 1e-3) for dtype in ("float32", "float16") for form in forms]
    errors = pd.DataFrame(rows, columns=["dtype", "form", "quantity", "num_tokens", "error"])
    (legend,) = report_fidelity.plot_numerics(errors).legends
    assert [text.get_text() for text in legend.get_texts()] == ["float16", "float32", *forms]
    dashes = [line.get_linestyle() for line in legend.get_lines()]
    assert dashes == ["-", "-", *report_fidelity.FORM_DASHES.values()]
