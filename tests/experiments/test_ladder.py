"""The ladder of DAT-light is fair wherever it is stopped, and each rung is measured once."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch

from taylorir.convert.calibration import Calibration, calibrate, converted_layers
from taylorir.convert.conversion import taylorize
from taylorir.experiments import ladder as module
from taylorir.experiments.conversion_picture import networks, panels
from taylorir.experiments.ladder import (
    LADDER_ROUNDS,
    LADDER_STEPS,
    MARKS,
    Conversion,
    Ladder,
    climb,
    folders,
    sets_at,
)
from taylorir.experiments.run import Places
from taylorir.images.io import write_image
from taylorir.networks.checkpoint import fit_weights, latest_checkpoint
from taylorir.networks.variants import build_model
from taylorir.rows.measured import PROVENANCE_COLUMNS
from tests.pictures import noise

TINY = Calibration(steps=(1, 1, 1), crop_size=8, log_every=1, eval_every=1, checkpoint_every=1)
TINY_ROUNDS = {
    "calibrated": (TINY, dataclasses.replace(TINY, steps=(0, 2, 0), seed=1)),
    "control": (
        dataclasses.replace(TINY, steps=(0, 0, 3)),
        dataclasses.replace(TINY, steps=(0, 0, 2), seed=1),
    ),
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A ladder of a tiny SwinIR on images of noise; its teacher is made once, as a released one is."""
    for name, sizes in {
        "train/BSDS400": 2,
        "train/T91": 1,
        "benchmarks/Set5": 2,
        "benchmarks/Set14": 1,
    }.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(sizes):
            write_image(tmp_path / "images" / name / f"{i}.png", noise(24, 28, 3, seed=i))
    torch.manual_seed(0)
    teacher = build_model("swinir_tiny_x2", embed_dim=4, num_heads=2, depths=(2,)).eval()
    monkeypatch.setattr(module, "load_dat_light", lambda upscale: teacher)
    monkeypatch.setattr(module, "CALIBRATION", TINY)
    monkeypatch.setattr(module, "LADDER_ROUNDS", TINY_ROUNDS)
    monkeypatch.setattr(module, "MARKS", (1, 2, 3, 5))
    monkeypatch.setattr(module, "ALL_SETS", ("Set5",))
    monkeypatch.setattr(module, "TEMPERATURES", {2: (1.0, 2.0)})
    monkeypatch.setattr(module, "HIGHER_ORDERS", {})
    monkeypatch.setattr(module, "PARTS", (1,))
    monkeypatch.setattr(module, "LARGER_WINDOWS", {"window_16x16": Conversion(1.0, window_size="16x16")})

    def converted(model, centre_keys=True, window_size=None, **how):
        """Our own SwinIR has square windows, and no keys are centred in it here."""
        return taylorize(model, window_size=window_size and window_size[0], **how)

    monkeypatch.setattr(module, "taylorize", converted)
    return Places(tmp_path / "runs", tmp_path / "results", data_root=tmp_path / "images")


def test_the_ladder_goes_on_where_it_stopped_and_measures_nothing_twice(places, monkeypatch):
    climb(places, until=1, progress=False)
    rows = pd.read_csv(places.results / "dat_light.csv")
    first = ["swapped", "swapped_best", "centred", "centred_best", "calibrated_1", "control_1"]
    assert list(dict.fromkeys(rows["run"])) == first
    climb(places, progress=False)
    rows = pd.read_csv(places.results / "dat_light.csv")
    assert list(dict.fromkeys(rows["run"])) == [
        *first, "calibrated_2", "control_2", "calibrated_3", "control_3", "partial_1", "window_16x16",
        "calibrated_5", "control_5",
    ]  # fmt: skip
    assert (rows.groupby("run").size() == 2).all()  # both images of Set5, once each
    before = {path: path.read_bytes() for path in places.results.iterdir()}
    monkeypatch.setattr(module, "calibrate", None)  # what is done is not begun again
    climb(places, progress=False)
    assert {path: path.read_bytes() for path in places.results.iterdir()} == before


def test_one_of_the_trainings_may_go_ahead_of_the_other(places):
    climb(places, until=2, kinds=["control"], progress=False)
    runs = pd.read_csv(places.results / "dat_light_runs.csv")["run"].tolist()
    assert [run for run in runs if run[-1].isdigit()] == ["control_1", "control_2"]


def test_rows_say_what_was_done_and_what_it_cost(places):
    climb(places, until=2, progress=False)
    runs = pd.read_csv(places.results / "dat_light_runs.csv").set_index("run")
    assert set(PROVENANCE_COLUMNS) <= set(runs)
    assert (runs.loc["swapped", "temperature"], runs.loc["swapped", "steps"]) == (1.0, 0)
    assert (runs.loc["calibrated_2", "steps"], runs.loc["calibrated_2", "layers"]) == (2, "all")
    assert runs.loc["control_2", "layers"] == "none" and runs.loc["control_2", "cpu_seconds"] > 0
    crops = pd.read_csv(places.results / "dat_light_crops.csv", dtype={"layers": str})
    tried = crops[(crops["layers"] == "all") & crops["centre_keys"]].set_index("temperature")["psnr_y"]
    assert set(tried.index) == {1.0, 2.0}
    assert runs.loc["centred_best", "temperature"] == tried.idxmax()
    assert list(crops[~crops["layers"].isin(["all", "none"])]["layers"]) == ["0", "1"]
    curves = pd.read_csv(places.results / "dat_light_curves.csv")
    assert list(curves[curves["run"] == "calibrated"]["step"]) == [1, 2]


def test_one_layer_is_converted_and_the_others_stay(places):
    ladder = Ladder(places, progress=False)
    expected = {"none": [], "0": ladder.layers[:1], "1": ladder.layers[1:], "all": ladder.layers}
    for layers, names in expected.items():
        converted = ladder.convert(Conversion(1.0, layers=layers))
        assert converted_layers(converted, ladder.teacher) == names


def test_the_layers_that_lose_least_alone_are_converted_first(places, monkeypatch):
    ladder = Ladder(places, progress=False)
    psnr = {"all": 30.0, "0": 31.0, "1": 32.0}
    monkeypatch.setattr(ladder, "on_crops", lambda conversion: psnr[conversion.layers])
    assert ladder.cheapest(1) == Conversion(layers="1")
    assert ladder.cheapest(2) == Conversion(layers="0 1")
    assert converted_layers(ladder.convert(Conversion(1.0, layers="0 1")), ladder.teacher) == ladder.layers


def test_windows_are_enlarged_after_the_conversion(places):
    ladder = Ladder(places, progress=False)
    model = ladder.convert(Conversion(1.0, window_size="16x16"))
    assert (ladder.teacher.config.window_size, model.config.window_size) == (8, 16)


def test_the_second_round_goes_on_from_the_first_and_is_resumed_within(places):
    ladder = Ladder(places, progress=False)
    for mark in (3, 4):
        ladder.train("calibrated", mark)
    first, second = (latest_checkpoint(folder) for folder in folders(places, "calibrated"))
    assert (first.record["step"], second.record["step"]) == (3, 1)
    ladder.train("calibrated", 5)
    curve = pd.read_csv(places.results / "dat_light_curves.csv")
    assert list(curve["step"]) == [1, 2, 3, 4, 5]
    assert curve["cpu_seconds"].is_monotonic_increasing
    assert list(curve["seed"]) == [0, 0, 0, 1, 1]
    runs = pd.read_csv(places.results / "dat_light_runs.csv").set_index("run")
    assert list(runs["steps"]) == [3, 4, 5]
    start, second = ladder.convert(Conversion()), TINY_ROUNDS["calibrated"][1]
    fit_weights(start, first.part("ema."), first.path)
    expected = calibrate(start, ladder.teacher, ladder._pool, second, upscale=2, device="cpu", progress=False)
    last = latest_checkpoint(folders(places, "calibrated")[1]).part("ema.")
    for name, parameter in expected.model.named_parameters():
        assert torch.equal(parameter, last[name]), name


def test_converted_network_and_control_differ_in_what_they_learn_from_alone():
    for ours, control in zip(LADDER_ROUNDS["calibrated"], LADDER_ROUNDS["control"], strict=True):
        assert control == dataclasses.replace(ours, steps=(0, 0, ours.num_steps))
    first, second = LADDER_ROUNDS["calibrated"]
    assert (MARKS[0], MARKS[-1]) == (first.steps[0], LADDER_STEPS)
    assert first.num_steps in MARKS and LADDER_STEPS == first.num_steps + second.num_steps
    assert sorted(MARKS) == list(MARKS)
    assert sets_at(MARKS[0]) == ("Set5",) and sets_at(first.num_steps) == ("Set5", "Set14", "BSD100")
    assert sets_at(3200) == sets_at(MARKS[-1]) == ("Set5", "Set14", "BSD100", "Urban100", "Manga109")


def test_the_picture_shows_the_calibrated_network_once_there_is_one(places):
    ladder = Ladder(places, progress=False)
    assert list(networks(ladder)) == ["released", "swapped", "best temperature"]
    ladder.train("calibrated", 2)
    shown = networks(ladder)
    assert list(shown) == ["released", "swapped", "calibrated, 2 steps"]
    last = latest_checkpoint(places.runs / "calibrated").part("ema.")
    for name, parameter in shown["calibrated, 2 steps"].named_parameters():
        assert torch.equal(parameter, last[name]), name
    ladder.train("calibrated", 4)
    assert list(networks(ladder))[-1] == "calibrated, 4 steps"
    found = panels(shown, {"x": noise(160, 160, 3)})
    assert list(found) == [*shown, "HR"]
    assert found["HR"].psnr_y is None and found["HR"].picture.shape == (64, 64, 3)
    assert all(found[title].psnr_y > 0 for title in shown)
