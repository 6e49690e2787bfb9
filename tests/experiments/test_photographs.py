"""Photographs without a truth: what is scored, and what differences of scores are called."""

import numpy as np
import pandas as pd
import pytest

from taylorir.datasets.manifest import manifest_entry
from taylorir.datasets.sets import NamedImage, load_images
from taylorir.experiments.budgets import shown_pair
from taylorir.experiments.growing import digest_of, named_models
from taylorir.experiments.photographs import agreement, compare_scores, photograph_rows
from taylorir.images.naturalness import niqe
from taylorir.report.evidence import LEAST_IMAGES
from taylorir.rows.committed import read_rows


def test_a_photograph_is_enlarged_as_it_is_and_one_with_a_truth_made_small_first():
    photo = NamedImage("photo", load_images("samples_held_out")[0].image[:200, :200])
    filters = {"bicubic": "bicubic", "lanczos": "lanczos"}
    found = photograph_rows(filters, [photo], 2, name="found")
    known = photograph_rows({"truth": "truth", **filters}, [photo], 2, name="known", truth=True)
    assert found["model"].tolist() == ["bicubic", "lanczos"] and found["psnr_y"].isna().all()
    assert (found[["height", "width"]] == 400).all(axis=None)
    assert known["model"].tolist() == ["truth", "bicubic", "lanczos"]
    assert (known[["height", "width"]] == 200).all(axis=None)
    assert known["niqe"][0] == pytest.approx(niqe(photo.image), abs=1e-4)
    assert np.isnan(known["psnr_y"][0]) and (known["psnr_y"][1:] > 20).all()
    assert (found["seed"] == -1).all() and (found["dtype"] == "uint8").all()


def scored(scores: dict[str, list[float]], psnrs: dict[str, list[float]] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {"image": f"i{i}", "model": model, "niqe": value, "psnr_y": (psnrs or scores)[model][i]}
        for model, values in scores.items()
        for i, value in enumerate(values)
    )


def test_differences_by_hand():
    rows = scored(
        {
            "bicubic": [5.0] * 5,
            "lanczos": [5.0] * 5,
            "a0": [6.0, 6.1, 6.2, 6.1, 6.1],
            "a1": [6.0, 6.1, 6.2, 6.1, 6.1],
            "b0": [5.9, 6.2, 6.2, 6.0, 6.2],
            "b1": [5.9, 6.2, 6.2, 6.0, 6.2],
        }
    )
    kinds = {"bicubic": ("bicubic",) * 2, "lanczos": ("lanczos",) * 2, "A": ("a0", "a1"), "B": ("b0", "b1")}
    table = compare_scores(rows, kinds).set_index(["first", "second"])
    assert ("bicubic", "lanczos") not in table.index and len(table) == 5
    assert table.loc[("bicubic", "A"), "difference"] == pytest.approx(1.1)
    assert table.loc[("A", "B"), "difference"] == pytest.approx(0.0, abs=1e-12)
    # seeds do not differ; five images have the standard error sqrt(0.005 / 5), times t of one degree
    half = 12.706204736 * 0.001**0.5
    assert table.loc[("bicubic", "A"), "high"] == pytest.approx(1.1 + half)
    assert table.loc[("bicubic", "A"), "verdict"] == "cannot say"  # p of 0.018, times five pairs
    several = compare_scores(rows, {"bicubic": ("bicubic",) * 2, "A": ("a0", "a1")})
    assert several["verdict"].tolist() == ["less natural"]


def test_agreement_is_the_share_of_pairs_that_both_order_alike():
    scores = {"x": [1.0, 1.0], "y": [2.0, 2.0], "z": [3.0, 3.0]}
    psnrs = {"x": [30.0, 30.0], "y": [29.0, 29.0], "z": [28.0, 31.0]}
    # the second image: x over y is agreed, z over x and over y is not
    share = agreement(scored(scores, psnrs), {name: (name,) for name in scores})
    assert share.difference == pytest.approx(4 / 6)


def test_the_rows_are_of_the_networks_that_chapters_show_on_equal_images():
    rows = read_rows("photographs.csv")
    found = rows[rows["set"] == "RealSRSet"]
    assert found["psnr_y"].isna().all() and rows["niqe"].notna().all()
    images = {image.image for image in manifest_entry("RealSRSet").hashes}
    for scale, some in found.groupby("upscale"):
        pair = shown_pair(scale)
        assert {"bicubic", "lanczos", *pair.reference, *pair.other, *pair.floor} == {*some["model"]}
        measured = [{*of_model["image"]} for _, of_model in some.groupby("model")]
        assert all(one == measured[0] <= images for one in measured) and len(measured[0]) >= LEAST_IMAGES
    for name, of_model in rows[rows["model"] != "truth"].groupby("model"):
        assert {*of_model["weights"]} == {digest_of(*named_models([name]).values())}
