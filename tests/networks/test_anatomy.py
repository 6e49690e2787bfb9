"""Counts of networks against published ones and against sums by hand."""

import pandas as pd
import pytest

from taylorir.networks import anatomy
from taylorir.networks.variants import build_model
from taylorir.report.networks import beside_published, plot_architecture


@pytest.mark.parametrize(
    ("name", "height", "width", "gmacs"),
    [("swinir_m_x4", 64, 64, 53.6), ("swinir_m_x4", 256, 256, 856.9), ("swinir_s_x4", 180, 320, 62.7)],
)
def test_multiplications_are_those_counted_elsewhere(name, height, width, gmacs):
    assert anatomy.count_gmacs(name, height, width) == pytest.approx(gmacs, abs=0.05)


def test_multiplications_by_hand():
    """One block of each stage and one stage, so that nothing is inferred from shorter networks."""
    c, tokens, window, hidden = 6, 64, 64, 12
    convolutions = tokens * 9 * (3 * c + c * c + c * c + c * 12)
    attention = tokens * (4 * c * c + 2 * window * c)
    mlp = tokens * 2 * c * hidden
    settings = {"embed_dim": c, "num_heads": 2, "depths": (1,)}
    found = anatomy.count_gmacs("swinir_tiny_x2", 5, 8, **settings)
    assert found == pytest.approx((convolutions + attention + mlp) / 1e9, rel=1e-12)


def test_counting_short_networks_gives_the_whole():
    whole = anatomy._count_gmacs("taylorswinir_tiny_x2", 20, 40, depths=(4, 2, 4))
    assert anatomy.count_gmacs("taylorswinir_tiny_x2", 20, 40, depths=(4, 2, 4)) == pytest.approx(whole)


def test_rows_of_networks_and_patches():
    rows = anatomy.model_rows(["swinir_tiny_x2", "taylorswinir_tiny_x2"], output=(40, 60))
    assert rows["tokens"].tolist() == [24 * 32, 32 * 32]  # 20 x 30 pixels, padded to windows of 8 and 16
    assert rows["window_tokens"].tolist() == [64, 256]
    assert rows["parameters_bias"].tolist() == [4 * 225 * 3, 0]
    patches = anatomy.patch_rows("swinir_tiny_x2", [1, 2], output=(96, 96))
    assert patches["tokens"].tolist() == [48 * 48, 24 * 24]
    projections = 24 * 24 * 4 + 24 + 24 * 96 + 96
    assert patches["parameters"].diff()[1] == projections


def test_stages_are_those_that_an_image_passes():
    stages = anatomy.stage_rows("taylorswinir_tiny_x2", 16, 32)
    network = stages[stages["level"] == "network"]
    assert network["stage"].tolist() == [
        "conv_first",
        "patch_embed",
        "layers.0",
        "layers.1",
        "norm",
        "patch_unembed",
        "conv_after_body",
        "upsample",
    ]
    assert network["shape"].iloc[-1] == "3 x 32 x 64"
    total = sum(parameter.numel() for parameter in build_model("taylorswinir_tiny_x2").parameters())
    assert network["parameters"].sum() == total
    assert stages[stages["level"] == "block"]["stage"].tolist() == ["norm1", "attn", "norm2", "mlp"]
    attention = stages[stages["level"] == "attention"]
    assert attention["stage"].tolist() == ["qkv", "attend", "proj"]
    assert attention["kind"].tolist() == ["Linear", "TaylorWindowAttention", "Linear"]
    assert attention["parameters"].tolist() == [24 * 72 + 72, 3, 24 * 24 + 24]  # a temperature per head
    assert attention["shape"].iloc[1] == "3 x 256 x 8"  # heads, tokens of a window, channels
    figure = plot_architecture(stages)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts[0] == "conv_first\nConv2d\n672\n24 × 16 × 32"
    each = network["parameters"].iloc[2]
    assert texts[2] == f"layers.0 to 1\n2 × RSTB\n{each:,} each\n16 × 32 × 24"  # equal ones share a box
    assert [len(axes.texts) for axes in figure.axes] == [7, 2, 4, 3]


def test_parameters_that_one_network_lacks():
    rows = anatomy.key_rows("swinir_tiny_x2", "taylorswinir_tiny_x2")
    assert rows.values.tolist() == [
        ["swinir_tiny_x2", "relative_position_bias_table", 4, 4 * 225 * 3],
        ["taylorswinir_tiny_x2", "temperature", 4, 4 * 3],
    ]


def test_published_values_beside_counted_ones():
    rows = pd.DataFrame(
        {
            "variant": ["a_x2"],
            "parameters": [1000],
            "parameters_bias": [50],
            "lr_height": [4],
            "lr_width": [5],
        }
    )
    published = pd.DataFrame(
        {
            "model": ["a", "a", "b"],
            "upscale": [2, 3, 2],
            "quantity": "parameters",
            "value": [950.0, 1.0, 1.0],
            "source": "s",
            "note": None,
        }
    )
    (row,) = beside_published(rows, published, "parameters").to_dict("records")
    assert (row["counted"], row["published"], row["without_bias"], row["note"]) == (1000, 950, 950, "")
    assert row["difference"] == pytest.approx(-0.05)
