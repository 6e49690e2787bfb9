"""Diffusion indices and receptive fields of many networks on the same patches: one row a network and patch.

``python -m taylorir.attribution.rows untrained swinir_mid_x2_3k_s0 --dataset BSD100 --out FILE.csv``

Rows are added to the file as they come; what is in it is not measured again, unless the weights changed
since: then the old rows go. Networks are compared on equal patches, so their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from torch import nn
from tqdm import tqdm

from taylorir.attribution.maps import (
    centre_patch,
    effective_receptive_field,
    field_width,
    gradient_detector,
    local_attribution,
)
from taylorir.datasets import NamedImage, load_images
from taylorir.images import imresize, to_tensor
from taylorir.networks import build_model, load_network, weights_digest
from taylorir.rows import one_line, provenance, read_rows, write_rows

#: The size of the networks that chapters show, without a position bias.
_SIZE = {"embed_dim": 48, "depths": (4, 4), "num_heads": 6, "drop_path_rate": 0.0, "position": "none"}
_SOFTMAX = {"softmax_backend": "flash"}
_TAYLOR = {"attention": "taylor"}

#: Equal but for the attention, the window and the shift. All are swinir_s_x2 of that size.
UNTRAINED: dict[str, dict[str, object]] = {
    "untrained_softmax_w8": {**_SOFTMAX, "window_size": 8},
    "untrained_softmax_w48": {**_SOFTMAX, "window_size": 48},
    "untrained_taylor_w8": {**_TAYLOR, "window_size": 8},
    "untrained_taylor_w48": {**_TAYLOR, "window_size": 48},
    "untrained_taylor_w48_no_shift": {**_TAYLOR, "window_size": 48, "shift": False},
}

FOLD, RULE = 6, "midpoint"  # about as exact as 50 steps of the published rule, "right"
KEY = (
    "network",
    "weights",
    "image",
    "crop_top",
    "crop_left",
    "lr_size",
    "patch_size",
    "fold",
    "rule",
    "seed",
)


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of an HR image and its LR: ``hr`` uint8 ``[s L, s L, 3]``, ``lr`` uint8 ``[L, L, 3]``."""

    image: str
    top: int
    left: int
    hr: np.ndarray
    lr: np.ndarray


def detailed_crops(
    images: Iterable[NamedImage], *, lr_size: int, upscale: int, per_image: int = 1, patch_size: int = 16
) -> Iterator[Crop]:
    """The crops of each image whose middle shows most detail: a rule, not a choice.

    An image is cut into squares side by side, from its top left corner; the ``per_image`` squares with the
    largest ``gradient_detector`` of their middle are used. Images that are too small give none.

    Args:
        images: HR images.
        lr_size: side of the LR crop.
        patch_size: side of the SR patch in its middle.
    """
    side = lr_size * upscale
    measure = gradient_detector(centre_patch(lr_size, lr_size, upscale, patch_size))
    for named in images:
        height, width = named.image.shape[:2]
        corners = [
            (y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)
        ]
        squares = {(y, x): np.ascontiguousarray(named.image[y : y + side, x : x + side]) for y, x in corners}
        detail = {corner: float(measure(to_tensor(square))) for corner, square in squares.items()}
        for top, left in sorted(corners, key=lambda corner: -detail[corner])[:per_image]:
            hr = squares[top, left]
            yield Crop(named.name, top, left, hr, imresize(hr, 1 / upscale))


def untrained_network(name: str, *, upscale: int = 2, seed: int = 0) -> nn.Module:
    """A network of ``UNTRAINED`` with weights drawn from a seed.

    Equal seeds give equal weights but for the temperatures, which only TaylorShift has. So the differences of
    two networks are those of the attention, not of the draw.

    Raises:
        ValueError: an unknown name.
    """
    if name not in UNTRAINED:
        raise ValueError(f"unknown untrained network {name!r}; known: {', '.join(UNTRAINED)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(f"swinir_s_x{upscale}", **_SIZE, **UNTRAINED[name]).eval()


def named_networks(names: Sequence[str], *, upscale: int = 2, seed: int = 0) -> dict[str, nn.Module]:
    """Networks by name: one of ``UNTRAINED``, or what :func:`taylorir.networks.load_network` takes.

    ``untrained`` alone stands for all of ``UNTRAINED``.

    Raises:
        ValueError: an unknown name, or a network of another factor.
        FileNotFoundError: a path that is not there.
    """
    networks: dict[str, nn.Module] = {}
    for name in names:
        if name.startswith("untrained"):
            for one in UNTRAINED if name == "untrained" else (name,):
                networks[one] = untrained_network(one, upscale=upscale, seed=seed)
            continue
        model = load_network(name)
        if model.config.upscale != upscale:
            raise ValueError(f"model: {name!r} upscales by {model.config.upscale}, expected {upscale}")
        networks[Path(name).stem] = model
    return networks


def describe_network(name: str, model: nn.Module) -> dict[str, object]:
    """What rows and labels say of a network: trained, attention, window_size, shift, position, upscale.

    The attention of a network without a transformer is "none".
    """
    shown = ("attention", "window_size", "shift", "position", "upscale")
    found = {"trained": name not in UNTRAINED} | {key: getattr(model.config, key) for key in shown}
    return found if model.config.depths else found | {"attention": "none"}


def attribution_rows(
    networks: Mapping[str, nn.Module],
    crops: Sequence[Crop],
    *,
    patch_size: int = 16,
    fold: int = FOLD,
    rule: str = RULE,
    batch_size: int = FOLD,
    seed: int = 0,
    known: pd.DataFrame | None = None,
    progress: bool = False,
) -> Iterator[dict[str, object]]:
    """Measure each network on each crop; rows come one by one, those in ``known`` are left out.

    Args:
        networks: by name; each has a ``config``.
        crops: of one size, see :func:`detailed_crops`.
        patch_size, fold, rule, batch_size: see :func:`taylorir.attribution.local_attribution`.
        seed: of untrained weights; it is only noted.
        known: rows that were measured before.

    Yields:
        The columns of ``KEY``, trained, attention, window_size, shift, position, upscale, diffusion_index
        (0..100), completeness_error, field_width (of the effective receptive field of this crop, see
        :func:`taylorir.attribution.field_width`, LR pixels) and the provenance.
    """
    known = pd.DataFrame(columns=list(KEY)) if known is None or known.empty else known
    done = set(known[list(KEY)].itertuples(index=False, name=None))
    with tqdm(total=len(networks) * len(crops), desc="patches", disable=not progress) as bar:
        for name, model in networks.items():
            weights = weights_digest(model)
            for crop in crops:
                bar.update()
                size = crop.lr.shape[0]
                place = (name, weights, crop.image, crop.top, crop.left, size, patch_size, fold, rule, seed)
                if place in done:
                    continue
                lr = to_tensor(crop.lr)
                patch = centre_patch(size, size, model.config.upscale, patch_size)
                found = local_attribution(model, lr, patch, fold=fold, rule=rule, batch_size=batch_size)
                yield {
                    **dict(zip(KEY, place, strict=True)),
                    **describe_network(name, model),
                    "diffusion_index": found.diffusion_index,
                    "completeness_error": found.completeness_error,
                    "field_width": field_width(effective_receptive_field(model, lr)),
                    **provenance(seed=seed),
                }


def _main(
    models: Annotated[
        list[str], typer.Argument(help='"untrained" for all of them, or one; names of weights; checkpoints.')
    ],
    out: Annotated[Path, typer.Option(help="CSV file; rows are added, those in it are not measured again.")],
    dataset: Annotated[str, typer.Option(help="Image set.")] = "samples",
    data_root: Annotated[Path | None, typer.Option(help="Folder of image sets.")] = None,
    upscale: Annotated[int, typer.Option(help="Factor of the networks.")] = 2,
    patches: Annotated[int, typer.Option(help="Number of patches.")] = 50,
    per_image: Annotated[int, typer.Option(help="Patches of one image at most.")] = 1,
    lr_size: Annotated[int, typer.Option(help="Side of the LR crop.")] = 48,
    fold: Annotated[int, typer.Option(help="Steps of the path.")] = FOLD,
    rule: Annotated[str, typer.Option(help="right (as published), midpoint or left.")] = RULE,
    batch_size: Annotated[int, typer.Option(help="Points of the path at once.")] = FOLD,
    seed: Annotated[int, typer.Option(help="Seed of untrained weights.")] = 0,
) -> None:
    """Diffusion indices of networks on the most detailed patches of an image set."""
    images = load_images(dataset, data_root)
    crops = [*detailed_crops(images, lr_size=lr_size, upscale=upscale, per_image=per_image)][:patches]
    networks = named_networks(models, upscale=upscale, seed=seed)
    rows = read_rows(out.resolve()) if out.exists() else None
    if rows is not None:
        current = {name: weights_digest(network) for name, network in networks.items()}
        rows = rows[rows.weights == rows.network.map(current).fillna(rows.weights)]
    settings = {"fold": fold, "rule": rule, "batch_size": batch_size, "seed": seed}
    for row in attribution_rows(networks, crops, **settings, known=rows, progress=True):
        new = pd.DataFrame([row])  # an empty table before it would turn its integers to floats
        rows = new if rows is None or rows.empty else pd.concat([rows, new], ignore_index=True)
        write_rows(out, rows)


def main() -> None:
    """The command ``python -m taylorir.attribution.rows``."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(_main)
    try:
        app(prog_name="python -m taylorir.attribution.rows")
    except (ValueError, OSError) as error:
        typer.echo(f"taylorir: error: {one_line(error)}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
