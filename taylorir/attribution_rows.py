"""Diffusion indices of many networks on the same patches: one row a network and patch, resumable.

``python -m taylorir.attribution_rows untrained swinir_mini_x2_s0 taylorswinir_mini_x2_s0 --out FILE.csv``

Rows are added to the file as they come; what is in it is not measured again. Networks are compared on equal
patches, so their differences are paired.
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

from taylorir.attribution import centre_patch, gradient_detector, local_attribution
from taylorir.datasets import NamedImage, load_images
from taylorir.evaluate import load_model
from taylorir.images import imresize, to_tensor, write_atomic
from taylorir.provenance import provenance
from taylorir.variants import build_model

_FUSED = {"softmax_backend": "fused"}
_SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": 6, "drop_path_rate": 0.0}

#: Untrained networks: equal but for the attention, the window and the shift. All are swinir_s_x2, made small.
UNTRAINED: dict[str, dict[str, object]] = {
    "softmax_w8": {"window_size": 8, **_FUSED},
    "softmax_w24": {"window_size": 24, **_FUSED},
    "softmax_w48": {"window_size": 48, **_FUSED},
    "taylor_w8": {"attention": "taylor", "window_size": 8},
    "taylor_w48": {"attention": "taylor", "window_size": 48},
    "softmax_w8_no_shift": {"window_size": 8, "shift": False, **_FUSED},
    "softmax_w48_no_shift": {"window_size": 48, "shift": False, **_FUSED},
    "taylor_w8_no_shift": {"attention": "taylor", "window_size": 8, "shift": False},
    "taylor_w48_no_shift": {"attention": "taylor", "window_size": 48, "shift": False},
}

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results" / "attribution.csv"
KEY = ("network", "image", "crop_top", "crop_left", "lr_size", "patch_size", "fold", "rule", "seed")


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
    largest :func:`taylorir.attribution.gradient_detector` of their middle are used. Images
    that are too small give none.

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

    Equal seeds give equal weights wherever two networks have a parameter of one name and shape: all but the
    position biases and the temperatures. So their differences are those of the attention, not of the draw.

    Raises:
        ValueError: an unknown name.
    """
    if name not in UNTRAINED:
        raise ValueError(f"unknown untrained network {name!r}; known: {', '.join(UNTRAINED)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        common = dict(
            build_model(f"swinir_s_x{upscale}", **_SMALL, **UNTRAINED["softmax_w8"]).named_parameters()
        )
        torch.manual_seed(seed)
        network = build_model(f"swinir_s_x{upscale}", **_SMALL, **UNTRAINED[name]).eval()
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name in common and common[parameter_name].shape == parameter.shape:
                parameter.copy_(common[parameter_name])
    return network


def named_networks(names: Sequence[str], *, upscale: int = 2, seed: int = 0) -> dict[str, nn.Module]:
    """Networks by the names of the command line: a name of ``UNTRAINED`` or what ``taylorir evaluate`` takes.

    ``untrained`` alone stands for all of ``UNTRAINED``; in rows their names begin with ``untrained_``.

    Raises:
        ValueError: an unknown name, bicubic, or a network of another factor.
        FileNotFoundError: a path that is not there.
    """
    networks: dict[str, nn.Module] = {}
    for name in names:
        if name == "untrained" or name in UNTRAINED:
            for one in UNTRAINED if name == "untrained" else (name,):
                networks[f"untrained_{one}"] = untrained_network(one, upscale=upscale, seed=seed)
            continue
        model = load_model(name)
        if isinstance(model, str):
            raise ValueError(f"model: got {name!r}, expected a network; {name} has no weights to look into")
        if model.config.upscale != upscale:
            raise ValueError(f"model: {name!r} upscales by {model.config.upscale}, expected {upscale}")
        networks[Path(name).stem] = model
    return networks


def attribution_rows(
    networks: Mapping[str, nn.Module],
    crops: Sequence[Crop],
    *,
    patch_size: int = 16,
    fold: int = 50,
    rule: str = "right",
    batch_size: int = 1,
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
        Columns network, trained, attention, window_size, shift, position, upscale, image, crop_top,
        crop_left, lr_size, patch_size, fold, rule, diffusion_index (0..100), completeness_error and the
        provenance.
    """
    known = pd.DataFrame(columns=list(KEY)) if known is None or known.empty else known
    done = set(known[list(KEY)].itertuples(index=False, name=None))
    with tqdm(total=len(networks) * len(crops), desc="patches", disable=not progress) as bar:
        for name, model in networks.items():
            config = model.config
            for crop in crops:
                bar.update()
                size = crop.lr.shape[0]
                place = (name, crop.image, crop.top, crop.left, size, patch_size, fold, rule, seed)
                if place in done:
                    continue
                patch = centre_patch(size, size, config.upscale, patch_size)
                found = local_attribution(
                    model, to_tensor(crop.lr), patch, fold=fold, rule=rule, batch_size=batch_size
                )
                yield {
                    **dict(zip(KEY, place, strict=True)),
                    "trained": not name.startswith("untrained_"),
                    "attention": config.attention,
                    "window_size": config.window_size,
                    "shift": config.shift,
                    "position": config.position,
                    "upscale": config.upscale,
                    "diffusion_index": found.diffusion_index,
                    "completeness_error": found.completeness_error,
                    **provenance(seed=seed),
                }


def stored_rows(path: Path = RESULTS) -> pd.DataFrame:
    """The committed rows.

    Raises:
        FileNotFoundError: there are none.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no such file: {path}; 'python -m taylorir.attribution_rows --help' says how to make it"
        )
    return pd.read_csv(path, dtype={"image": str})  # images of BSD are called by numbers


def _main(
    models: Annotated[
        list[str], typer.Argument(help='"untrained", names of untrained networks, weights or checkpoints.')
    ],
    out: Annotated[Path, typer.Option(help="CSV file; rows are added, those in it are not measured again.")],
    dataset: Annotated[str, typer.Option(help="Image set.")] = "samples",
    data_root: Annotated[Path | None, typer.Option(help="Folder of image sets.")] = None,
    upscale: Annotated[int, typer.Option(help="Factor of the networks.")] = 2,
    patches: Annotated[int, typer.Option(help="Number of patches.")] = 50,
    per_image: Annotated[int, typer.Option(help="Patches of one image at most.")] = 8,
    lr_size: Annotated[int, typer.Option(help="Side of the LR crop.")] = 48,
    fold: Annotated[int, typer.Option(help="Steps of the path.")] = 50,
    rule: Annotated[str, typer.Option(help="right (as published), midpoint or left.")] = "right",
    batch_size: Annotated[int, typer.Option(help="Points of the path at once.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of untrained weights.")] = 0,
) -> None:
    """Diffusion indices of networks on the most detailed patches of an image set."""
    images = load_images(dataset, data_root)
    crops = [*detailed_crops(images, lr_size=lr_size, upscale=upscale, per_image=per_image)][:patches]
    networks = named_networks(models, upscale=upscale, seed=seed)
    rows = stored_rows(out) if out.exists() else pd.DataFrame()
    settings = {"fold": fold, "rule": rule, "batch_size": batch_size, "seed": seed}
    for row in attribution_rows(networks, crops, **settings, known=rows, progress=True):
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        table = rows
        write_atomic(out, lambda stream, table=table: table.to_csv(stream, index=False))


def main() -> None:
    """The command ``python -m taylorir.attribution_rows``."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(_main)
    try:
        app(prog_name="python -m taylorir.attribution_rows")
    except (ValueError, OSError) as error:
        typer.echo(f"taylorir: error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
