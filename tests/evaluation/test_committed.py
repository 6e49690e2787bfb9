"""Committed rows that no training and no clock has a part in are what the code measures today."""

from __future__ import annotations

import pytest

from taylorir.datasets import data_root
from taylorir.evaluation import evaluate
from taylorir.rows import read_rows

HAS_SET5 = data_root() is not None and (data_root() / "benchmarks/Set5").is_dir()
needs_set5 = pytest.mark.skipif(not HAS_SET5, reason="needs Set5 under TAYLORIR_DATA")


@needs_set5
@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_bicubic_on_set5(upscale):
    rows = read_rows("bicubic.csv")
    kept = rows[(rows["set"] == "Set5") & (rows["upscale"] == upscale)].set_index("image")
    found = evaluate("bicubic", "Set5", upscale).set_index("image")
    assert len(found) == len(kept) == 5
    for measure in ("psnr_y", "ssim_y"):
        assert found[measure].to_dict() == pytest.approx(kept[measure].to_dict(), abs=2e-6)


@needs_set5
def test_what_is_given_to_networks_that_restore():
    rows = read_rows("restoration_input.csv")
    kept = rows[(rows["set"] == "Set5") & (rows["degradation"] == "jpeg10")].set_index("image")
    found = evaluate("bicubic", "Set5", 1, degradation="jpeg10").set_index("image")
    assert len(kept) == 5
    assert found["psnr_y"].to_dict() == pytest.approx(kept["psnr_y"].to_dict(), abs=1e-4)
