"""Rows that grow in a file: nothing is measured twice, and nothing is kept of weights that are gone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from taylorir.datasets.sets import NamedImage
from taylorir.evaluation.super_resolution import super_resolve
from taylorir.experiments.growing import digest_of, enlarge, grow_rows, models_by_kind, named_models
from taylorir.experiments.plan import Comparison
from taylorir.networks.variants import build_model
from taylorir.rows.committed import read_rows

PHOTO = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def test_filters_and_networks_enlarge():
    models = named_models(["bicubic", "lanczos"])
    assert np.array_equal(enlarge(models["bicubic"], PHOTO, 3), super_resolve("bicubic", PHOTO, upscale=3))
    by_pillow = Image.fromarray(PHOTO).resize((36, 27), Image.Resampling.LANCZOS)
    assert np.array_equal(enlarge(models["lanczos"], PHOTO, 3), np.array(by_pillow))
    assert [digest_of(model) for model in models.values()] == ["bicubic", "lanczos"]


def test_a_kind_without_models_is_left_out():
    pair = Comparison("main", "label", ("swinir_a",), ("taylorswinir_a",))
    assert models_by_kind(pair) == {
        "bicubic": ["bicubic"],
        "Lanczos": ["lanczos"],
        "SwinIR": ["swinir_a"],
        "TaylorSwinIR": ["taylorswinir_a"],
    }
    with_floor = models_by_kind(dataclasses.replace(pair, floor=("linear_a",)))
    assert with_floor["no transformer"] == ["linear_a"]


def test_rows_grow_and_those_of_other_weights_are_measured_again(tmp_path):
    out, images = tmp_path / "rows.csv", [NamedImage("1", PHOTO), NamedImage("2", PHOTO)]
    network, asked = build_model("swinir_tiny_x2"), []

    def measure(name: str, model: object, image: NamedImage) -> pd.DataFrame:
        asked.append((name, image.name))
        if image.name == broken:
            raise KeyboardInterrupt
        row = {"model": name, "weights": digest_of(model), "image": image.name, "scale": scale}
        return pd.DataFrame([row])

    def grow() -> list[tuple[str, str]]:
        asked.clear()
        grow_rows(out, {"bicubic": "bicubic", "net": network}, images, measure, same={"scale": scale})
        return asked

    broken, scale = "2", 2
    with pytest.raises(KeyboardInterrupt):
        grow()
    assert read_rows(out)[["model", "image"]].values.tolist() == [["bicubic", "1"], ["net", "1"]]
    broken = ""
    assert grow() == [("bicubic", "2"), ("net", "2")]
    assert grow() == []
    with torch.no_grad():
        network.conv_first.bias[0] += 1
    assert grow() == [("net", "1"), ("net", "2")]
    scale = 4
    assert len(grow()) == 4
    rows = read_rows(out)
    assert len(rows) == 8 and rows[rows["model"] == "net"]["weights"].unique().tolist() == [
        digest_of(network)
    ]
