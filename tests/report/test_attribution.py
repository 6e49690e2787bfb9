"""Intervals and paired differences of diffusion indices by hand; each figure draws what it is given."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from taylorir.report import attribution as report_attribution
from taylorir.report.attribution import Box, diffusion_summary, labels_of, paired_differences


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rows() -> pd.DataFrame:
    index = {"untrained_softmax_w8": [1.0, 2.0, 3.0], "taylor": [2.0, 4.0, 3.5]}
    return pd.DataFrame(
        [
            {
                "network": network,
                "image": image,
                "crop_top": 0,
                "crop_left": 0,
                "lr_size": 48,
                "patch_size": 16,
            }
            | {"fold": 6, "rule": "midpoint", "seed": 0, "window_size": 8, "shift": network == "taylor"}
            | {"attention": "taylor" if network == "taylor" else "softmax", "trained": network == "taylor"}
            | {"position": "none", "diffusion_index": value, "field_width": 2 * value}
            for network, values in index.items()
            for image, value in zip("abc", values, strict=True)
        ]
    )


def test_trainings_that_differ_in_the_seed_are_told_apart():
    twins = pd.concat([rows().replace({"network": {"taylor": f"taylor_s{seed}"}}) for seed in (0, 1)])
    assert labels_of(twins) == {
        "untrained_softmax_w8": "SwinIR w8, no bias, no shift, untrained",
        "taylor_s0": "TaylorSwinIR w8, trained, seed 0",
        "taylor_s1": "TaylorSwinIR w8, trained, seed 1",
    }


def test_summary_by_hand():
    summary = diffusion_summary(rows())
    assert summary.label.tolist() == ["TaylorSwinIR w8, trained", "SwinIR w8, no bias, no shift, untrained"]
    half = 4.302652729911275 / math.sqrt(3)  # Student's t, 2 degrees of freedom; 1, 2, 3 deviate by 1
    assert summary["mean"][1] == pytest.approx(2)
    assert (summary.low[1], summary.high[1]) == pytest.approx((2 - half, 2 + half))
    fields = summary[["field_mean", "field_low", "field_high"]].values.tolist()[1]
    assert fields == pytest.approx([4, 4 - 2 * half, 4 + 2 * half])


def test_summary_orders_by_attention_window_and_shift():
    kinds = [("taylor", 8, True), ("softmax", 48, True), ("softmax", 8, False), ("softmax", 8, True)]
    kinds.append(("none", 8, True))
    some = [
        rows().assign(network=f"{number}", attention=attention, window_size=window, shift=shift)
        for number, (attention, window, shift) in enumerate(kinds)
    ]
    summary = diffusion_summary(pd.concat(some)[lambda r: r.trained])
    assert summary.network.tolist() == ["4", "3", "2", "1", "0"]
    assert summary.label.tolist()[0] == "no transformer, trained"
    assert len(report_attribution.plot_diffusion(summary).axes[0].get_yticklabels()) == 5


def test_paired_differences_by_hand():
    questions = [("change", ["taylor"], ["untrained_softmax_w8"]), ("other", ["taylor"], ["absent"])]
    some = rows().drop(index=4)  # patch b of the second network: only a and c are common, gains 1 and 0.5
    found = paired_differences(some, questions)
    assert found.question.tolist() == ["change"] and found.images.tolist() == [2]
    assert found.difference.tolist() == [0.75] and found.larger.tolist() == [1.0]
    assert found.verdict.tolist() == ["one seed: no verdict"]
    assert paired_differences(some, questions, "field_width").difference.tolist() == [1.5]


def test_a_network_below_the_floor_is_shown_and_not_judged():
    several = pd.concat([rows(), rows().replace({"network": {"taylor": "taylor_s1"}})])
    pairs = ["untrained_softmax_w8"] * 2
    question = [("seeds", ["taylor", "taylor_s1"], pairs)]
    free, barred = (
        paired_differences(several.drop_duplicates(), question, below=below) for below in ((), ("taylor_s1",))
    )
    assert free.difference.tolist() == barred.difference.tolist() == pytest.approx([3.5 / 3])
    assert (free.barred[0], barred.barred[0]) == ("", "below the floor: not judged")
    assert barred.verdict.tolist() == ["below the floor: not judged"] != free.verdict.tolist()


def test_trainings_count_as_patches_do():
    again = rows().replace({"network": {"taylor": "taylor_s1"}}).query("network == 'taylor_s1'")
    both = pd.concat([rows(), again.assign(diffusion_index=again.diffusion_index + 1)])
    found = paired_differences(both, [("seeds", ["taylor", "taylor_s1"], ["untrained_softmax_w8"] * 2)])
    # gains 1, 2, 0.5 under one training, one more under the other: seeds' means differ by 1
    error = math.hypot(0.5, np.std([1, 2, 0.5], ddof=1) / math.sqrt(3))
    half = 12.706204736432095 * error
    mean = 3.5 / 3 + 0.5
    assert found[["difference", "low", "high"]].values.tolist()[0] == pytest.approx(
        [mean, mean - half, mean + half]
    )
    assert found.verdict.tolist() == ["3 images: no verdict"]


def test_a_difference_in_words():
    found = pd.DataFrame([{"question": "a", "difference": 1.234, "low": -0.1, "high": 2.0, "seeds": 3}])
    assert report_attribution.difference_text(found, "a") == "+1.23 (-0.10 to +2.00)"
    assert report_attribution.difference_text(found.assign(seeds=1), "a") == "+1.23 (one training)"
    assert report_attribution.difference_text(found, "b") == "(not measured)"


def test_one_patch_has_no_interval():
    summary = diffusion_summary(rows().iloc[:1])
    assert summary["mean"][0] == 1 and math.isnan(summary.low[0])


def test_figures_draw_what_they_are_given():
    figure = report_attribution.plot_diffusion(diffusion_summary(rows()))
    assert figure.axes[0].get_yticklabels()[0].get_text() == "TaylorSwinIR w8, trained"
    values = np.zeros((4, 6))
    values[1, 2] = 4.0
    values[0, 0] = 1.0
    figure = report_attribution.plot_maps(np.zeros((4, 6, 3), np.uint8), {"one": values}, Box(1, 1, 2))
    drawn = figure.axes[1].images[0].get_array()
    assert drawn[1, 2] == 1 and drawn[0, 0] == 0.5
    assert figure.axes[1].patches[0].get_bbox().bounds == (0.5, 0.5, 2, 2)
    figure = report_attribution.plot_fields({"one": values / 5}, {"one": 3})
    drawn = figure.axes[0].images[0].get_array()
    assert drawn[1, 2] == 0 and drawn[0, 0] == pytest.approx(np.log10(0.25)) and drawn[3, 3] == -6
    assert figure.axes[0].patches[0].get_bbox().bounds == (1, 0, 3, 3)
