"""The ``taylorir`` command. What needs torch is imported when it runs, so that help is quick."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import taylorir
from taylorir.cli.benchmark import benchmark_app, usable_device
from taylorir.cli.convert import convert, survey
from taylorir.cli.data import DataRoot, data_app
from taylorir.cli.models import complete_dataset, complete_model, complete_variant, list_models
from taylorir.cli.options import (
    Degradation,
    Device,
    Ensemble,
    Memory,
    Overlap,
    Precision,
    Quiet,
    Tile,
    Upscale,
)
from taylorir.cli.output import AsJson, Out, check_out, print_json, write_csv
from taylorir.rows import is_out_of_memory
from taylorir.training import keep_freed_memory

if TYPE_CHECKING:
    from torch import nn

UPSCALES = (1, 2, 3, 4, 8)
DEFAULT_UPSCALE = 2  # of bicubic, and where no model is named

app = typer.Typer(
    help="TaylorShift attention in SwinIR: train, evaluate, upscale pictures, measure cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("models")(list_models)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(data_app, name="data")
app.command()(convert)
app.command()(survey)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taylorir {taylorir.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command's name."""
    if context.invoked_subcommand != "benchmark":  # which measures how the library runs by itself
        keep_freed_memory()


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors of the user end with one line on standard error and exit code 2."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="taylorir", standalone_mode=False)
    except (ValueError, TypeError, OSError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        _fail(reason)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error of the command-line parser
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        _fail(error.format_message())
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    typer.echo(f"taylorir: error: {' '.join(message.split())}", err=True)
    sys.exit(2)


def _reason(error: Exception) -> str | None:
    """One line for a user's error; None for what must be a mistake in the program."""
    if is_out_of_memory(error):
        return "out of memory; try --tile auto with --memory, or a smaller --tile or batch"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, ValueError | OSError) else None


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="bicubic, a variant with weights, a checkpoint, or a SwinIR .pth",
            autocompletion=complete_model,
        ),
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Set to measure on; may be repeated. Default: samples_held_out.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    upscale: Upscale = None,
    data_root: DataRoot = None,
    tile: Tile = "none",
    overlap: Overlap = None,
    memory: Memory = None,
    self_ensemble: Ensemble = False,
    degradation: Degradation = "none",
    padding: Annotated[str, typer.Option(help="reflect, or flip as in SwinIR's test script.")] = "reflect",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = "auto",
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """PSNR and SSIM of a model by the protocol of the field (luma, border shaved, MATLAB bicubic)."""
    import pandas as pd

    from taylorir.convert import load_any
    from taylorir.datasets import image_files
    from taylorir.evaluation import evaluate as measure

    _check_upscale(upscale)
    names = dataset or ["samples_held_out"]
    for name in names:
        image_files(name, data_root)
    check_out(out)
    network = load_any(model, device=usable_device(device))
    upscale = _factor(network, upscale)
    frames = []
    for name in names:
        rows = measure(
            network,
            name,
            upscale,
            data_root=data_root,
            name=model if "/" not in model else Path(model).stem,
            degradation=degradation,
            tile=_tile(tile),
            overlap=overlap,
            memory=memory,
            self_ensemble=self_ensemble,
            padding=padding,
            precision=precision,
            progress=not quiet,
        )
        if not as_json:
            typer.echo(
                f"{name} x{upscale}: {len(rows)} images, PSNR-Y {rows.psnr_y.mean():.3f} dB, "
                f"SSIM-Y {rows.ssim_y.mean():.4f}, {rows.seconds.sum():.1f} s"
            )
        frames.append(rows)
    if as_json:
        print_json(pd.concat(frames))
    write_csv(pd.concat(frames), out)


@app.command()
def upscale(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A picture, or a folder of pictures.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The result, or a folder for the results.")],
    upscale: Upscale = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="As in evaluate. Default: the best weights in data/weights for the factor.",
            autocompletion=complete_model,
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="denoise or jpeg: take the weights for that, which enlarge nothing.")
    ] = "",
    tile: Tile = "auto",
    overlap: Overlap = None,
    memory: Memory = None,
    self_ensemble: Ensemble = False,
    precision: Precision = "auto",
    device: Device = "auto",
    suffix: Annotated[str, typer.Option(help="Format of a folder's results: .png, .webp or .jpg.")] = ".png",
    quiet: Quiet = False,
) -> None:
    """Upscale your own picture, or a folder of them.

    Orientation, transparency, greyscale and colour profile are kept, and 16 bits in a PNG; CMYK, animation
    and 16 bits in WebP and JPEG are reduced, and that is said. A folder goes on after a broken file, names it
    at the end, and exits with 1.
    """
    _check_upscale(upscale)
    from taylorir.convert import load_any
    from taylorir.evaluation import (
        check_source,
        check_target,
        parse_memory,
        peak_resident_memory,
        upscale_file,
        upscale_folder,
    )
    from taylorir.images import picture_size
    from taylorir.networks import default_model

    tile_size = _tile(tile)
    if memory is not None:
        parse_memory(memory)
    if not source.is_dir():
        target = target / f"{source.stem}{suffix}" if target.is_dir() else target
        check_source(source)
        picture_size(source)
        check_target(source, target)
    where = usable_device(device)
    if model and task:
        raise ValueError("give either --model or --task")
    name = model or default_model(upscale or DEFAULT_UPSCALE, task)
    network = load_any(name, device=where)
    upscale = _factor(network, upscale)
    if precision == "auto":
        precision = "bfloat16" if where.startswith("cuda") else "float32"

    def one(file: Path, result: Path) -> list[str]:
        return upscale_file(
            network,
            file,
            result,
            upscale=upscale,
            tile=tile_size,
            overlap=overlap,
            memory=memory,
            self_ensemble=self_ensemble,
            precision=precision,
            progress=not quiet,
        )

    typer.echo(f"model: {name}")
    if upscale >= 4:
        from taylorir.evaluation import expectation

        if hint := expectation(name, upscale):
            typer.echo(f"note: {hint}")
    if not source.is_dir():
        started = time.monotonic()
        for note in one(source, target):
            typer.echo(f"note: {note}")
        seconds, peak = time.monotonic() - started, peak_resident_memory() / 2**20
        typer.echo(f"{source} -> {target} ({seconds:.0f} s, at most {peak:,.0f} MiB of memory)")
        return
    done, failures = upscale_folder(source, target, one, suffix=suffix, report=typer.echo)
    typer.echo(f"{done} of {done + len(failures)} files upscaled")
    if failures:
        for file, reason in failures.items():
            typer.echo(f"taylorir: {file}: {reason}", err=True)
        raise typer.Exit(1)


@app.command()
def train(
    variant: Annotated[
        str,
        typer.Argument(help="Name of a variant, e.g. taylorswinir_tiny_x2.", autocompletion=complete_variant),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curve.csv and weights.safetensors.")],
    num_iters: Annotated[int | None, typer.Option(help="Steps of the optimiser.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, crops and stochastic depth.")] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits on every run.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop after this time, with a checkpoint.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")
    ] = False,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Training set; may be repeated. Default: the sample images.")
    ] = None,
    data_root: DataRoot = None,
    init: Annotated[str | None, typer.Option(help="Start from the weights of this checkpoint.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="NAME=VALUE for any other setting of the run or the network; may be repeated."
        ),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a variant; killed at any moment, it goes on with --resume."""
    from taylorir.networks import ModelConfig, build_model, checkpoint_files, load_network
    from taylorir.training import TrainConfig, parse_setting, train as run

    run_names = {field.name for field in dataclasses.fields(TrainConfig)} - {"model"}
    model_names = {field.name for field in dataclasses.fields(ModelConfig)}
    settings: dict[str, object] = {"seed": seed, "deterministic": deterministic}
    overrides: dict[str, object] = {}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, not {text!r}")
        name = name.strip()
        if name not in run_names | model_names:
            raise ValueError(f"unknown setting {name!r}; known: {', '.join(sorted(run_names | model_names))}")
        if name in run_names:
            settings[name] = parse_setting(TrainConfig, name, value)
        else:
            overrides[name] = parse_setting(ModelConfig, name, value)
    if num_iters is not None:
        settings["num_iters"] = num_iters
    if dataset:
        settings["datasets"] = tuple(dataset)
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"--max-minutes must be positive, not {max_minutes}")
    config = TrainConfig(model=build_model(variant, **overrides).config, **settings)
    start = load_network(init) if init else None
    try:
        result = run(
            config,
            data_root=data_root,
            out=out,
            resume=resume,
            max_minutes=max_minutes,
            init=start,
            device=device,
            progress=not quiet,
        )
    except (KeyboardInterrupt, SystemExit):
        if saved := checkpoint_files(out):
            typer.echo(f"interrupted; {saved[-1]} is saved, go on with --resume", err=True)
        raise
    if result.weights is None:
        typer.echo(f"stopped at step {result.step} of {config.num_iters}; go on with --resume")
        return
    psnr = result.curve.psnr_y.dropna()
    typer.echo(f"{result.weights}" + (f": held-out PSNR-Y {psnr.iloc[-1]:.2f} dB" if len(psnr) else ""))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A variant with weights, a checkpoint, or a SwinIR .pth")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write: .onnx, or .pt2 (torch.export).")
    ],
    check: Annotated[bool, typer.Option(help="Run the file on three sizes against PyTorch.")] = True,
) -> None:
    """Write a network for other runtimes, with free height and width; it pads and crops by itself."""
    from taylorir.evaluation import check_writable
    from taylorir.networks import TOLERANCE, SwinIR, export_network, exported_difference, load_network

    network = load_network(model)
    if not isinstance(network, SwinIR):
        kind = network.config.architecture
        raise ValueError(f"only SwinIR and TaylorSwinIR can be exported; {model} is of {kind}")
    check_writable(target)
    export_network(network, target)
    typer.echo(f"{model} -> {target} ({target.stat().st_size / 2**20:.1f} MiB)")
    if not check:
        return
    differences = exported_difference(network, target)
    for (height, width), difference in differences.items():
        typer.echo(f"{height}x{width}: largest difference from PyTorch {difference:.1e}")
    if max(differences.values()) > TOLERANCE:
        raise ValueError(f"{target} differs from PyTorch by more than {TOLERANCE:g}")


def _check_upscale(upscale: int | None) -> None:
    if upscale not in (None, *UPSCALES):
        raise ValueError(f"--upscale must be 1, 2, 3, 4 or 8, not {upscale}")


def _factor(network: nn.Module | str, asked: int | None) -> int:
    from taylorir.evaluation import check_upscale

    return check_upscale(network, DEFAULT_UPSCALE if asked is None and isinstance(network, str) else asked)


def _tile(text: str) -> int | str | None:
    if text in ("none", "auto"):
        return None if text == "none" else text
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f'--tile must be a number of pixels, "auto" or "none", not {text!r}')
    return int(text)
