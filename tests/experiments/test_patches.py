"""What a token is: means by hand, and memory that falls with the number of tokens."""

from __future__ import annotations

import pandas as pd
import pytest

from taylorir.experiments import patch_table


def test_means_of_seeds_and_images_by_hand():
    values = {
        "linear_mid_x2_3k_s0": (30.0, 32.0), "linear_mid_x2_3k_s1": (31.0, 33.0),
        "taylorswinir_mid_x2_3k_s0": (33.0, 34.0), "taylorswinir_mid_x2_3k_s5": (99.0, 99.0),
        "taylor_p4_mid_x2_3k_s1": (30.0, 31.0),
    }  # fmt: skip
    rows = pd.DataFrame(
        [(run, "Set5", str(i), db, db / 100) for run, both in values.items() for i, db in enumerate(both)]
        + [("linear_mid_x2_3k_s0", "Urban100", "0", 10.0, 0.1)],
        columns=["run", "set", "image", "psnr_y", "ssim_y"],
    )
    table = patch_table(rows, lr_size=48)
    assert table[["network", "side", "seeds", "images"]].to_numpy().tolist() == [
        ["no transformer", 1, 2, 2], ["TaylorSwinIR", 1, 1, 2], ["TaylorSwinIR", 4, 1, 2],
    ]  # fmt: skip
    assert table["psnr_y"].tolist() == [31.5, 33.5, 30.5]
    assert table["ssim_y"].tolist() == pytest.approx([0.315, 0.335, 0.305])
    assert table["over"].tolist() == [0.0, 2.0, -1.0]
    none, pixels, patches = table["memory"]
    assert none < patches < pixels / 2
