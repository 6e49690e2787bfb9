"""The ladder of DAT-light x2: its quality after each step of a conversion, and what training brings back.

``python -m taylorir.experiments.ladder --data-root DIR`` does what is not done of it, and may be stopped at
any moment. Rows are written as they come:

* ``dat_light_crops.csv``: quality on the centres of some training images, for each temperature, order, layer;
* ``dat_light.csv``: quality on benchmark sets, a row an image and run;
* ``dat_light_runs.csv``: a row a run: what it was, what it cost;
* ``dat_light_curves.csv``: the learning curves of the converted network and of the control.

The converted network and the control see the same crops, step by step, in as many rounds, and are trained in
turns, so that the ladder is fair wherever it is stopped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import torch
import typer
from torch import nn

from taylorir.convert import Calibration, TaylorAttention, calibrate, converted_layers, taylorize
from taylorir.experiments.dat_light import ALL_SETS, fused, load_dat_light, measure, measured_sets
from taylorir.experiments.run import Places, replace_rows
from taylorir.rows import provenance
from taylorir.training import HeldOut, PatchPool, keep_freed_memory, load_training_images, read_curve

UPSCALE = 2
TRAINING_SETS = ("BSDS400", "T91")
NUM_CROPS = 4  # of training images, evenly spaced, whose centres choose the temperature
TEMPERATURES = {2: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), 4: (4.0, 6.0, 8.0, 12.0), 6: (4.0, 6.0, 8.0, 12.0)}
"""Order of the series -> the temperatures that are tried."""

CALIBRATION = Calibration(
    steps=(100, 7100, 1800), crop_size=64, log_every=50, eval_every=100, checkpoint_every=50
)
"""Attention transfer, distillation, and the true picture at last, which takes the network away again from
what it had learnt; so there is a second round."""
AGAIN = dataclasses.replace(CALIBRATION, steps=(0, 7000, 0), eval_every=500, seed=1)
"""Of distillation alone, from the averaged weights of the first, on other crops."""
LADDER_ROUNDS = {
    "calibrated": (CALIBRATION, AGAIN),
    "control": tuple(dataclasses.replace(r, steps=(0, 0, r.num_steps)) for r in (CALIBRATION, AGAIN)),
}
"""Kind of training -> its rounds. The control is the released network simply trained on: the same crops,
rates and steps."""
LADDER_STEPS = sum(settings.num_steps for settings in LADDER_ROUNDS["calibrated"])
"""Of both rounds together."""
MARKS = (CALIBRATION.steps[0], 200, 300, 400, 600, 800, 1600, 3200, 6400, CALIBRATION.num_steps, LADDER_STEPS)
"""Steps, of both rounds together, at which both networks are measured."""
ON_ALL_SETS = (3200, LADDER_STEPS)
"""The marks at which they are measured on all sets, which takes longer than training to the first."""


@dataclass(frozen=True)
class Conversion:
    """What is done to the network, before any training.

    Attributes:
        temperature: of all heads; 0 stands for the best of ``TEMPERATURES``.
        centre_keys: whether keys are centred.
        order: of the series; above 2 the weights are formed, as features would be more than tokens.
        layers: "all", "none", or the indices of those that are converted.
        window_size: rows x columns of new rectangles; "" keeps those of the released network.
    """

    temperature: float = 0.0
    centre_keys: bool = True
    order: int = 2
    layers: str = "all"
    window_size: str = ""


RUNGS: dict[str, Conversion] = {
    "swapped": Conversion(1.0, centre_keys=False),
    "swapped_best": Conversion(centre_keys=False),
    "centred": Conversion(1.0),
    "centred_best": Conversion(),
}
"""Measured on Set5; the last one is trained on."""
HIGHER_ORDERS: dict[str, Conversion] = {f"order_{order}": Conversion(order=order) for order in (4, 6)}
LARGER_WINDOWS: dict[str, Conversion] = {
    f"window_{size}": Conversion(window_size=size) for size in ("16x64", "48x48")
}
PARTS = (3, 6)
"""Numbers of layers that are converted in part, those that lose least alone."""


class Ladder:
    """The networks of the ladder, and the rows that are made with them."""

    def __init__(self, places: Places, *, progress: bool = True) -> None:
        self.places, self.progress = places, progress
        self.teacher = load_dat_light(UPSCALE)
        self.layers = converted_layers(taylorize(self.teacher), self.teacher)

    def convert(self, conversion: Conversion) -> nn.Module:
        """The network converted so, with the best temperature where none is given."""
        if conversion.layers == "none":
            return self.teacher
        window = conversion.window_size
        model = taylorize(
            self.teacher,
            temperature=conversion.temperature or self.best_temperature(conversion),
            centre_keys=conversion.centre_keys,
            keep=[] if conversion.layers == "all" else self._but(conversion.layers.split()),
            window_size=tuple(map(int, window.split("x"))) if window else None,
        )
        for module in model.modules():
            if isinstance(module, TaylorAttention):
                module.order = conversion.order
        return model

    def _but(self, converted: list[str]) -> list[str]:
        return [name for i, name in enumerate(self.layers) if str(i) not in converted]

    def best_temperature(self, conversion: Conversion) -> float:
        """Of all layers converted so, with the windows of the released network."""
        tried = TEMPERATURES[conversion.order]
        same = {"layers": "all", "window_size": ""}
        found = {value: dataclasses.replace(conversion, temperature=value, **same) for value in tried}
        return max(tried, key=lambda value: self.on_crops(found[value]))

    def cheapest(self, count: int) -> Conversion:
        """That of the layers alone that lose least alone."""
        best = self.best_temperature(Conversion())
        alone = {i: self.on_crops(Conversion(best, layers=str(i))) for i in range(len(self.layers))}
        chosen = sorted(sorted(alone, key=alone.get, reverse=True)[:count])
        return Conversion(layers=" ".join(map(str, chosen)))

    def on_crops(self, conversion: Conversion) -> float:
        """PSNR-Y in dB on the centres of some training images; measured once."""
        key = {name: str(value) for name, value in dataclasses.asdict(conversion).items()}
        path = self.places.results / "dat_light_crops.csv"
        if path.exists():
            rows = pd.read_csv(path, dtype=dict.fromkeys(key, str), keep_default_na=False)
            rows = rows[(rows[list(key)] == pd.Series(key)).all(axis=1)]
            if len(rows):
                return float(rows["psnr_y"].iloc[0])
        row = key | {"psnr_y": round(self._crops.psnr(self.convert(conversion)), 4), "images": NUM_CROPS}
        replace_rows(self.places, path.name, pd.DataFrame([row | provenance()]), **key)
        return row["psnr_y"]

    @functools.cached_property
    def _crops(self) -> HeldOut:
        images = load_training_images(TRAINING_SETS[:1], self.places.data_root)
        return HeldOut(images[:: max(len(images) // NUM_CROPS, 1)][:NUM_CROPS], UPSCALE)

    @functools.cached_property
    def _pool(self) -> PatchPool:
        images = load_training_images(TRAINING_SETS, self.places.data_root)
        pixels, names = [image.image for image in images], [image.name for image in images]
        return PatchPool(pixels, names, upscale=UPSCALE, crop_size=CALIBRATION.crop_size)

    def climb(self, run: str, conversion: Conversion) -> None:
        """Measure a conversion on Set5, unless it is."""
        if "Set5" in measured_sets(run, self.places):
            return
        about = dataclasses.asdict(conversion)
        about["temperature"] = conversion.temperature or self.best_temperature(conversion)
        self._note(run, about)
        measure(self.convert(conversion), run, UPSCALE, ("Set5",), self.places, progress=self.progress)

    def train(self, kind: str, mark: int) -> None:
        """Bring the converted network ("calibrated") or the "control" to a mark, and measure it there."""
        run = f"{kind}_{mark}"
        if set(sets_at(mark)) <= measured_sets(run, self.places):
            return
        conversion = RUNGS["centred_best"] if kind == "calibrated" else Conversion(layers="none")
        model, done, seconds, curves = fused(self.convert(conversion)), 0, 0.0, []
        for folder, settings in zip(folders(self.places, kind), LADDER_ROUNDS[kind], strict=True):
            result = calibrate(
                model,
                fused(self.teacher),
                self._pool,
                settings,
                upscale=UPSCALE,
                out=folder,
                resume=True,
                stop_at=mark - done,
                device="cpu",
                progress=self.progress,
            )
            curve = read_curve(folder)[["step", "loss", "psnr_y", "cpu_seconds"]].round(6)
            offset = curve.assign(step=curve["step"] + done, cpu_seconds=curve["cpu_seconds"] + seconds)
            curves.append(offset.assign(run=kind, **provenance(seed=settings.seed)))
            model, done, seconds = result.model, done + result.step, seconds + result.cpu_seconds
            if done >= mark:
                break
        replace_rows(self.places, "dat_light_curves.csv", pd.concat(curves), run=kind)
        if done != mark:  # it was beyond the mark already
            return
        about = dataclasses.asdict(conversion) | {"steps": mark, "cpu_seconds": round(seconds, 3)}
        self._note(run, about)
        measure(model, run, UPSCALE, sets_at(mark), self.places, progress=self.progress)

    def _note(self, run: str, about: dict) -> None:
        row = {"run": run, "steps": 0, "cpu_seconds": 0.0} | about | provenance(seed=CALIBRATION.seed)
        replace_rows(self.places, "dat_light_runs.csv", pd.DataFrame([row]), run=run)


def choices(ladder: Ladder) -> Iterator[Conversion]:
    """What is measured on the training crops: the original, every temperature, layers one by one."""
    yield Conversion(layers="none")
    for order, tried in TEMPERATURES.items():
        for centre_keys in (True, False) if order == 2 else (True,):
            yield from (Conversion(value, centre_keys, order) for value in tried)
    best = ladder.best_temperature(Conversion())
    yield from (Conversion(best, layers=str(layer)) for layer in range(len(ladder.layers)))


def sets_at(mark: int) -> tuple[str, ...]:
    """Where the networks of a mark are measured: the larger sets at ``ON_ALL_SETS`` alone."""
    return ALL_SETS if mark in ON_ALL_SETS else ALL_SETS[: 1 + (mark >= 800) + (mark >= 6400)]


def folders(places: Places, kind: str) -> list[Path]:
    """Where the checkpoints of each round of a training lie."""
    return [
        places.runs / kind / ("" if i == 0 else f"round_{i + 1}") for i in range(len(LADDER_ROUNDS[kind]))
    ]


def climb(
    places: Places,
    *,
    until: int = MARKS[-1],
    kinds: Sequence[str] = tuple(LADDER_ROUNDS),
    progress: bool = True,
) -> None:
    """Do what is not done of the ladder, up to a mark; of the trainings, those of ``kinds``.

    Raises:
        ValueError, OSError: as :func:`taylorir.convert.calibrate` and :func:`taylorir.evaluation.evaluate`.
    """
    ladder = Ladder(places, progress=progress)
    for run, conversion in RUNGS.items():
        ladder.climb(run, conversion)
    for mark in MARKS:
        if mark > until:
            return
        for kind in kinds:
            ladder.train(kind, mark)
        if mark == MARKS[0]:
            for conversion in choices(ladder):
                ladder.on_crops(conversion)
        if mark == MARKS[2]:
            parts = {f"partial_{count}": ladder.cheapest(count) for count in PARTS}
            for run, conversion in (parts | HIGHER_ORDERS | LARGER_WINDOWS).items():
                ladder.climb(run, conversion)


def _main(
    until: Annotated[int, typer.Option(help="The last mark, in steps; 0 trains nothing.")] = MARKS[-1],
    only: Annotated[
        Literal["calibrated", "control"] | None, typer.Option(help="Train this one alone. Default: in turns.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image sets.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of checkpoints and locks.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder of the rows.")] = Path("data/results"),
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Go up the ladder of DAT-light x2; what is measured already stays."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    places = Places(runs=runs / "dat_light", results=results, data_root=data_root)
    climb(places, until=until, kinds=(only,) if only else tuple(LADDER_ROUNDS), progress=not quiet)


if __name__ == "__main__":
    typer.run(_main)
