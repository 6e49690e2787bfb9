"""``taylorir benchmark``: time, peak memory and floating-point work, one row a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taylorir.cli.options import Device
from taylorir.cli.output import AsJson, Out, check_out, print_json, print_table, write_csv

if TYPE_CHECKING:
    import pandas as pd
    import torch

benchmark_app = typer.Typer(
    help="What attention and networks cost: time, memory, operations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is no positive number")
    return value


Jobs = Annotated[int, typer.Option(min=1, help="Processes to work in.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Seconds = Annotated[float, typer.Option(callback=_positive, help="Time to spend on a measurement.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="May be repeated; default: all.")]
Modes = Annotated[list[str] | None, typer.Option("--mode", help="May be repeated; default: all.")]


@benchmark_app.command("time")
def time_networks(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants to time, or files and folders of networks of any kind. "
            "Default: swinir_s_x2 and taylorswinir_s_x2."
        ),
    ] = None,
    lr_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Side of the LR image; may be repeated.")
    ] = None,
    window_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Window; may be repeated. Default: each variant's own.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Way to attend, as in the memory table; may be repeated. Default: each variant's."),
    ] = None,
    mode: Annotated[str, typer.Option(help="forward, or train (forward and backward).")] = "forward",
    seconds: Seconds = 3.0,
    longest: Annotated[
        float,
        typer.Option(callback=_positive, help="A call that takes more seconds is run once, its warm-up."),
    ] = 60.0,
    dtype: Dtype = "float32",
    device: Device = "auto",
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time networks on square images, in turns: median with the 20% and 80% quantiles."""
    from taylorir.cost import NETWORK_METHODS, TimedNetwork, network_rows
    from taylorir.evaluation import window_pixels
    from taylorir.networks import VARIANTS, build_model, load_network

    check_out(out)
    for name in method or ():
        if name not in NETWORK_METHODS:
            raise ValueError(f"--method must be one of {', '.join(NETWORK_METHODS)}, not {name!r}")
    networks = []
    for name in models or ["swinir_s_x2", "taylorswinir_s_x2"]:
        if name not in VARIANTS:
            if method or window_size:
                raise ValueError(f"--method and --window-size are of variants, {name} is none")
            network = load_network(name)
            networks.append(TimedNetwork("as it is", Path(name).stem, window_pixels(network), model=network))
            continue
        for window in window_size or [build_model(name).config.window_size]:
            if method is None:
                networks.append(TimedNetwork(name, name, window))
                continue
            networks += [
                TimedNetwork(way, name, window, tuple(NETWORK_METHODS[way].items())) for way in method
            ]
    rows = network_rows(
        networks,
        lr_size or [96],
        modes=[mode],
        seconds=seconds,
        longest=longest,
        device=usable_device(device),
        dtype=_dtype(dtype),
    )
    shown = ("variant", "method", "window_size", "mode", "lr_size", "latency_ms", "cpu_ms", "status")
    _finish(rows, shown, out, quiet, as_json)


@benchmark_app.command("network")
def network_cost(
    models: Annotated[
        list[str], typer.Argument(help="Variants, names of weights, or files and folders of any network.")
    ],
    lr_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Side of the LR image; may be repeated. Default: 96.")
    ] = None,
    mode: Annotated[list[str] | None, typer.Option(help="infer (default) or train; may be repeated.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images.")] = 1,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Parameters, operations and peak memory of any network, counted without running it; needs no GPU."""
    from taylorir.cost import cost_rows
    from taylorir.networks import VARIANTS, build_model, load_network

    check_out(out)
    networks = {name: build_model(name) if name in VARIANTS else load_network(name) for name in models}
    rows = cost_rows(networks, lr_size or [96], mode or ["infer"], batch=batch)
    shown = ("model", "upscale", "parameters", "lr_size", "mode", "batch", "gflops", "peak_memory_mib")
    _finish(rows, shown, out, quiet, as_json)


@benchmark_app.command("attention")
def time_attention(
    num_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Tokens N; may be repeated. Default: 64 to 65536.")
    ] = None,
    method: Methods = None,
    mode: Modes = None,
    head_dim: Annotated[int, typer.Option(min=1, help="Width of a head: 30 in SwinIR-M, 10 in S.")] = 30,
    num_heads: Annotated[int, typer.Option(min=1, help="Heads.")] = 6,
    total_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the whole batch of windows; default: one window.")
    ] = None,
    seconds: Seconds = 1.0,
    dtype: Dtype = "float32",
    device: Device = "auto",
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time attention alone against the number of tokens."""
    from taylorir.cost import RUNTIME_MODES, attention_methods, attention_rows

    check_out(out)
    chosen = usable_device(device)
    rows = attention_rows(
        method or attention_methods(chosen),
        num_tokens or (64, 144, 256, 576, 1024, 2304, 4096, 9216, 16384, 36864, 65536),
        head_dim=head_dim,
        num_heads=num_heads,
        total_tokens=total_tokens,
        modes=mode or RUNTIME_MODES,
        device=chosen,
        dtype=_dtype(dtype),
        seconds=seconds,
    )
    _finish(rows, ("method", "mode", "num_tokens", "batch", "latency_ms", "status"), out, quiet, as_json)


@benchmark_app.command("memory")
def memory(
    model: Annotated[list[str] | None, typer.Option(help="S or M; may be repeated; default: both.")] = None,
    method: Methods = None,
    window_size: Annotated[
        list[int] | None, typer.Option(min=1, help="May be repeated; default: 8 to 96.")
    ] = None,
    lr_size: Annotated[
        list[int] | None, typer.Option(min=1, help="May be repeated; default: 48 to 512.")
    ] = None,
    upscale: Annotated[list[int] | None, typer.Option(help="2, 3 or 4; may be repeated.")] = None,
    mode: Modes = None,
    jobs: Jobs = 2,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Peak memory of a training step and of inference, exact, traced on fake tensors; needs no GPU.

    With --out an interrupted run goes on where it stopped.
    """
    from taylorir.cost import LR_SIZES, NETWORK_METHODS, UPSCALES, WINDOWS, memory_points, memory_table

    check_out(out)
    points = memory_points(
        model or ("M", "S"),
        method or tuple(NETWORK_METHODS),
        window_size or WINDOWS,
        lr_size or LR_SIZES,
        upscale or UPSCALES,
        mode or ("train", "infer"),
    )
    rows = memory_table(points, out, jobs=jobs, progress=not quiet)
    shown = ("model", "method", "checkpoint", "window_size", "lr_size", "upscale", "mode", "peak_memory_mib")
    _finish(rows, shown if len(rows) <= 60 else (), None, quiet, as_json)


@benchmark_app.command("limits")
def limits(jobs: Jobs = 2, out: Out = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """The largest window and the largest image that fit in 8 to 141 GiB, by search over the accounting."""
    from taylorir.cost import limit_points, limit_rows

    check_out(out)
    rows = limit_rows(limit_points(), jobs=jobs, progress=not quiet)
    _finish(rows, ("method", "checkpoint", "mode", "vary", "budget_gib", "largest"), out, quiet, as_json)


@benchmark_app.command("flops")
def flops(out: Out = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Operations of attention, counted from what runs, beside the formulas."""
    from taylorir.cost import flop_rows

    check_out(out)
    _finish(
        flop_rows(), ("method", "num_tokens", "head_dim", "forward_flops", "train_flops"), out, quiet, as_json
    )


@benchmark_app.command("validate")
def validate(
    large: Annotated[bool, typer.Option("--large", help="Windows of 96 and 192 instead.")] = False,
    limit_gib: Annotated[
        float | None, typer.Option(callback=_positive, help="Address space of each process, GiB, on a CPU.")
    ] = None,
    device: Device = "auto",
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """The accounting beside what real runs allocate, each in a fresh process."""
    from taylorir.cost import LARGE_POINTS, VALIDATION_POINTS, validation_rows

    check_out(out)
    rows = validation_rows(
        usable_device(device), LARGE_POINTS if large else VALIDATION_POINTS, limit_gib=limit_gib
    )
    _finish(
        rows, ("method", "checkpoint", "mode", "window_size", "lr_size", "difference"), out, quiet, as_json
    )


def _finish(rows: pd.DataFrame, shown: tuple[str, ...], out: Path | None, quiet: bool, as_json: bool) -> None:
    columns = [name for name in shown if name in rows]
    if as_json:
        print_json(rows)
    elif not quiet and columns:
        print_table(rows[columns])
    write_csv(rows, out)


def _dtype(name: str) -> torch.dtype:
    import torch

    names = ("float32", "bfloat16", "float16")
    if name not in names:
        raise ValueError(f"--dtype must be one of {', '.join(names)}, not {name!r}")
    return getattr(torch, name)


def usable_device(name: str) -> str:
    """The torch device that ``--device`` names; "auto" is the GPU where there is one.

    Raises:
        ValueError: a device that cannot be used here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name).item()  # a "meta" device holds no values
    except (RuntimeError, AssertionError):
        raise ValueError(f"--device {name} cannot be used here") from None
    return name
