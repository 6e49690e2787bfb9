"""Do the runs of :mod:`taylorir.experiments.protocol`: ``python -m taylorir.experiments run --tier mini``.

Several processes may share the list, on one machine or on a shared file system with file locks: each takes
the next run that nobody works on. What is done is skipped, what was cut short goes on from its checkpoint,
and rows are written as they come:

* ``quality_TIER_runs.csv``: a row a run: what it was, what it cost;
* ``quality_TIER.csv``: a row an image;
* ``quality_TIER_curves.csv``: the learning curves.

On several GPUs one run after the other is done by all of them, without locks, so start it once:
``torchrun --nproc-per-node 8 -m taylorir.experiments run --tier paper --data-root DIR``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from filelock import FileLock, Timeout

from taylorir.datasets import NamedImage
from taylorir.evaluation import evaluate
from taylorir.experiments.plan import Run
from taylorir.experiments.protocol import EXPERIMENTS, TIERS, find_run, runs_of
from taylorir.networks import SwinIR, build_from_config, load_checkpoint, read_record, taylorize
from taylorir.rows import PROVENANCE_COLUMNS, one_line, provenance, write_atomic, write_rows
from taylorir.training import (
    Processes,
    TrainConfig,
    TrainResult,
    join_processes,
    keep_freed_memory,
    load_training_images,
    read_curve,
    train,
)

_ROW_COLUMNS = ("run", "set", "image", "upscale", "psnr_y", "ssim_y", *PROVENANCE_COLUMNS)
_AS_TEXT = {"dtype": str, "keep_default_na": False}
SUFFIXES = (".safetensors", ".json")  # of weights


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        runs: checkpoints, a folder a tier and run; not committed.
        results: the CSV files.
        weights: the weights of the main runs.
        data_root: the image sets, see :func:`taylorir.datasets.data_root`.
    """

    runs: Path = Path("runs")
    results: Path = Path("data/results")
    weights: Path = Path("data/weights")
    data_root: Path | None = None


def run_tier(
    tier: str,
    places: Places,
    *,
    only: Sequence[str] = (),
    sets: Sequence[str] | None = None,
    progress: bool = True,
    processes: Processes | None = None,
) -> list[str]:
    """Do the runs of a tier that are not done, main rows first; then measure them.

    Args:
        tier: a name of ``protocol.TIERS``.
        places: where things lie.
        only: names of runs; empty means all.
        sets: benchmark sets, of which a run is measured on those that it lacks; None means its own. Where
            sets are given and the training is not here but its weights are kept, those are measured.
        progress: show bars.
        processes: those of torchrun, which then work together; None is this one alone, beside others perhaps.

    Returns:
        The names of the runs that are not done: another process works on them, or they paused at their time
        limit.

    Raises:
        ValueError: an unknown tier or run, or as :func:`taylorir.training.train`.
        OSError: a file cannot be read or written.
    """
    chosen = [find_run(tier, name) for name in only] or runs_of(tier)
    together, first = processes is not None and processes.count > 1, processes is None or processes.is_first
    images: dict[tuple[str, ...], list[NamedImage]] = {}
    pending = []
    for run in chosen:
        folder = places.runs / tier / run.name
        source = _source(run, tier, places)
        lock = places.runs / tier / f"{run.name}.lock"
        with contextlib.nullcontext(True) if together else _only_here(lock) as mine:
            if mine and sets is not None and not folder.exists() and _is_complete(places.weights / run.name):
                if first:
                    _measure(run, tier, places.weights / run.name, places, sets)
                continue
            if not mine or (source is not None and not _is_complete(source)):
                pending.append(run.name)
                continue
            if not _is_complete(folder / "weights"):
                names = run.config.datasets
                if names not in images:
                    images[names] = load_training_images(names, places.data_root)
                if first:
                    print(f"{run.name}: training", flush=True)
                if _train(run, folder, source, images[names], places, progress).weights is None:
                    pending.append(run.name)
                    continue
            if first:
                _keep(run, tier, folder, places)
                if run.measured:
                    _measure(run, tier, folder / "weights", places, run.sets if sets is None else sets)
    return pending


def _source(run: Run, tier: str, places: Places) -> Path | None:
    """What a run begins with, but for the suffix: of a training, or weights that are kept of it."""
    name = run.upcycled_from or run.branched_from
    if not name:
        return None
    source = places.runs / tier / name / "weights"
    if run.upcycled_from and not source.parent.exists():
        return places.weights / name
    return source


def _train(
    run: Run, folder: Path, source: Path | None, images: list[NamedImage], places: Places, progress: bool
) -> TrainResult:
    init = None
    if run.upcycled_from:
        init = begun_with(load_checkpoint(_weights_file(source)), run.config)
    return train(
        run.config,
        images=images,
        data_root=places.data_root,
        out=folder,
        resume=True,
        max_minutes=run.max_minutes,
        init=init,
        branch_from=source.parent if run.branched_from else None,
        progress=progress,
    )


def begun_with(parent: SwinIR, config: TrainConfig) -> SwinIR:
    """A network to begin a run with: its parent, turned by ``taylorize``, or what it shares with its parent.

    Any other network than these two has the weights of its parent where names and shapes are equal, as those
    of softmax are to TaylorShift's but for the bias, and those of x3 to x2's but for the last convolution.
    What is left is at random, by the seed of the run.
    """
    asked = config.model
    if asked == parent.config:
        return parent
    if (asked.attention, parent.config.attention) == ("taylor", "softmax"):
        turned = taylorize(parent, window_size=asked.window_size, position=asked.position)
        if turned.config == asked:
            return turned
    torch.manual_seed(config.seed)
    model, weights = build_from_config(asked), dict(parent.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights and weights[name].shape == parameter.shape:
                parameter.copy_(weights[name])
    return model


def _weights_file(stem: Path) -> Path:
    return stem.with_name(stem.name + SUFFIXES[0])


def _is_complete(stem: Path) -> bool:
    """Whether weights are there with all that a training ends with."""
    return all(stem.with_name(stem.name + suffix).exists() for suffix in SUFFIXES)


def _keep(run: Run, tier: str, folder: Path, places: Places) -> None:
    """See that the row of a finished run and its curve are there, and its weights where they are to be kept.

    All of it is read from the folder of the run, so what a killed process left out comes with the next one.
    The row comes last: where it is of another training than the folder, so are the rows of the images, which
    are removed.
    """
    config, model, curve = run.config, run.config.model, read_curve(folder)
    record = read_record(folder / "weights.safetensors")
    measured_by = {column: record[column] for column in PROVENANCE_COLUMNS}
    network = load_checkpoint(folder / "weights.safetensors")
    row = {
        "run": run.name,
        "experiments": " ".join(run.experiments),
        "attention": model.attention,
        "position": model.position,
        "window_size": model.window_size,
        "patch_size": model.patch_size,
        "num_heads": max(model.num_heads, default=0),
        "embed_dim": model.embed_dim,
        "shift": model.shift,
        "upscale": model.upscale,
        "upcycled_from": run.upcycled_from,
        "branched_from": run.branched_from,
        "parameters": sum(p.numel() for p in network.parameters()),
        "num_iters": config.num_iters,
        "decay_iters": config.decay_iters,
        "batch_size": config.batch_size,
        "crop_size": config.crop_size,
        "learning_rate": config.learning_rate,
        "seconds": record["seconds"],
        "cpu_seconds": record["cpu_seconds"],
        "iterations_per_second": round(config.num_iters / record["seconds"], 3),
        "data_share": round(float(curve.data_share.median()), 4),
        "utilisation": float(curve.utilisation.iloc[-1]),
        "held_out_psnr_y": round(float(curve.psnr_y.iloc[-1]), 4),
        **measured_by,
    }
    about = f"quality_{tier}_runs.csv"
    if not _is_of_training(places.results / about, row):
        replace_rows(places, f"quality_{tier}.csv", pd.DataFrame(columns=list(_ROW_COLUMNS)), run=run.name)
    columns = ["run", "step", "loss", "psnr_y", "seconds", "cpu_seconds", *PROVENANCE_COLUMNS]
    points = curve[curve.psnr_y.notna()].assign(run=run.name, **measured_by).round(6)[columns]
    replace_rows(places, f"quality_{tier}_curves.csv", points, run=run.name)
    if run.keep_weights:
        places.weights.mkdir(parents=True, exist_ok=True)
        for suffix in SUFFIXES:
            content = (folder / f"weights{suffix}").read_bytes()
            kept = places.weights / f"{run.name}{suffix}"
            if not kept.exists() or kept.read_bytes() != content:
                write_atomic(kept, lambda file, content=content: file.write(content))
    replace_rows(places, about, pd.DataFrame([row]), run=run.name)


def _is_of_training(path: Path, row: dict) -> bool:
    """Whether the row of this run in the file is of the same training: of the same seconds and commit."""
    if not path.exists():
        return False
    identity = ["run", "seconds", "cpu_seconds", "commit"]
    rows = pd.read_csv(path, **_AS_TEXT)[identity]
    return bool((rows == pd.Series({column: str(row[column]) for column in identity})).all(axis=1).any())


def _measure(run: Run, tier: str, weights: Path, places: Places, sets: Sequence[str]) -> None:
    """Evaluate weights, given without their suffix, on the sets that have no rows yet."""
    path = places.results / f"quality_{tier}.csv"
    done: set[str] = set()
    if path.exists():
        rows = pd.read_csv(path, usecols=["run", "set"])
        done = set(rows[rows.run == run.name].set)
    for name in sets:
        if name in done:
            continue
        model = load_checkpoint(_weights_file(weights))
        rows = evaluate(
            model,
            name,
            run.config.model.upscale,
            data_root=places.data_root,
            name=run.name,
            degradation=run.config.degradation,
        )
        print(f"{run.name}: {name} {rows.psnr_y.mean():.3f} dB", flush=True)
        rows = rows.assign(run=run.name, **_where(run))[list(_ROW_COLUMNS)].round({"psnr_y": 4, "ssim_y": 6})
        replace_rows(places, path.name, rows, run=run.name, set=name)


def _where(run: Run) -> dict[str, str | int]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return provenance(device=device, dtype=run.config.dtype, seed=run.config.seed)


def replace_rows(places: Places, name: str, rows: pd.DataFrame, **key: str) -> None:
    """Put rows into a CSV file in the place of those that have the key; one process at a time.

    Where they are there already, the file stays untouched.
    """
    path = places.results / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(io.StringIO(rows.to_csv(index=False)), **_AS_TEXT)
    with _only_here(places.runs / f"{name}.lock", wait=True):
        old = pd.read_csv(path, **_AS_TEXT) if path.exists() else rows.iloc[:0]
        same = (old[list(key)] == pd.Series(key)).all(axis=1)
        if old[same].reset_index(drop=True).equals(rows):
            return
        write_rows(path, pd.concat([old[~same], rows]))


@contextlib.contextmanager
def _only_here(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock that ends with the process; gives whether it was free (always, when waiting)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    with lock:
        yield True


app = typer.Typer(
    help="The budgeted quality experiments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_runs(tier: Annotated[str, typer.Option(help=f"One of {', '.join(TIERS)}.")] = "mini") -> None:
    """The runs of a tier and the experiments that they serve."""
    for run in runs_of(tier):
        config = run.config
        typer.echo(
            f"{run.name:28s} {' '.join(run.experiments):14s} {config.num_iters} iterations of "
            f"{config.batch_size} crops of {config.crop_size}x{config.crop_size}, seed {config.seed}"
        )
    for key, what in EXPERIMENTS.items():
        typer.echo(f"{key}: {what}")


@app.command("run")
def run_command(
    tier: Annotated[str, typer.Option(help=f"One of {', '.join(TIERS)}.")] = "mini",
    only: Annotated[list[str] | None, typer.Option(help="A run; may be repeated. Default: all.")] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Set to measure on; may be repeated. Default: those of the run."),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder with benchmarks/SET/* and train/SET/*; else TAYLORIR_DATA.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Do what is not done, main rows first. May be started in several processes; interrupt it at any time."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    places = Places(data_root=data_root)
    with join_processes("auto") as processes:
        pending = run_tier(
            tier, places, only=only or (), sets=dataset or None, progress=not quiet, processes=processes
        )
    if pending:
        typer.echo(f"not done, run again to go on: {', '.join(pending)}")
        raise typer.Exit(3)


def main() -> None:
    """The command; errors of the user end with one line on standard error and exit code 2."""
    try:
        sys.exit(typer.main.get_command(app).main(prog_name="taylorir.experiments", standalone_mode=False))
    except (ValueError, OSError) as error:
        reason = one_line(error)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error of the command-line parser
            raise
        reason = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
    typer.echo(f"taylorir: error: {reason}", err=True)
    sys.exit(2)
