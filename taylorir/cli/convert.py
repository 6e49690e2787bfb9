"""``taylorir survey`` and ``taylorir convert``: the softmax attention of a network, named and replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taylorir.cli.output import AsJson, Out, check_out, print_json, write_csv

if TYPE_CHECKING:
    from torch import nn

Source = Annotated[
    str, typer.Argument(help="A variant or its weights, a checkpoint, or a file or folder of any network.")
]


def survey(
    model: Source,
    lr_size: Annotated[int, typer.Option(min=1, help="Side of the LR image.")] = 64,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """List each softmax attention of a network, and whether TaylorShift can take its place; runs nothing."""
    import pandas as pd
    import torch

    from taylorir.convert import survey as find
    from taylorir.networks import VARIANTS, ForeignNetwork, build_model, image_channels

    check_out(out)
    network = build_model(model) if model in VARIANTS else _load(model)
    rows = find(network, torch.empty(1, image_channels(network), lr_size, lr_size))
    if isinstance(network, ForeignNetwork):
        rows["module"] = rows["module"].str.removeprefix("network.")
    if as_json:
        print_json(rows)
    else:
        with pd.option_context("display.width", None, "display.max_colwidth", None):
            typer.echo(rows.to_string(index=False) if len(rows) else f"{model} attends nowhere by softmax")
    write_csv(rows, out)


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="As in survey, with weights.")],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A .safetensors file; a folder for a Swin2SR of transformers."),
    ],
    temperature: Annotated[float, typer.Option(help="Of every head.")] = 1.0,
    centre_keys: Annotated[bool, typer.Option("--centre-keys", help="Take from keys their mean.")] = False,
    window_size: Annotated[int | None, typer.Option(min=1, help="New windows; default: as they are.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Module that keeps softmax, with all in it, as survey names it; may be repeated."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder of HR pictures to bring the new network near the old one with."),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Of distillation; attention transfer before it takes a fifth of them.")
    ] = 1000,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Replace softmax by TaylorShift and keep all else. It is a new network: calibrate it before use."""
    from taylorir.convert import save_converted, taylorize
    from taylorir.evaluation import check_writable
    from taylorir.networks import ForeignNetwork, save_weights

    network = _load(source)
    settings = {"temperature": temperature, "centre_keys": centre_keys, "window_size": window_size}
    settings["keep"] = keep or []
    inner = network.network if isinstance(network, ForeignNetwork) else network
    converted = taylorize(inner, **settings)
    if calibrate:
        converted = _calibrated(network, converted, calibrate, steps, quiet)
    if hasattr(inner, "save_pretrained"):
        converted.save_pretrained(target)
    else:
        if target.suffix != ".safetensors":
            raise ValueError(f"OUT must end in .safetensors for a {type(inner).__name__}, got {target}")
        check_writable(target)
        if inner is network and not keep:
            save_weights(target, converted, {"converted_from": Path(source).name})
        else:
            save_converted(target, inner, converted, settings)
    typer.echo(f"{source} -> {target}")


def _calibrated(network: nn.Module, converted: nn.Module, folder: Path, steps: int, quiet: bool) -> nn.Module:
    from taylorir.convert import Calibration, calibrate
    from taylorir.datasets import NamedImage
    from taylorir.images import read_image
    from taylorir.networks import ForeignNetwork

    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    images = [NamedImage(file.stem, read_image(file)) for file in files]
    settings = Calibration(steps=(max(1, steps // 5), steps, 0))
    foreign = isinstance(network, ForeignNetwork)
    student = ForeignNetwork(converted, network.config) if foreign else converted
    result = calibrate(student, network, images, settings, held_out=images[:1], progress=not quiet)
    return result.model.network if foreign else result.model


def _load(name: str) -> nn.Module:
    from taylorir.convert import load_any

    network = load_any(name)
    if isinstance(network, str):
        raise ValueError(f"{name} is no network")
    return network
