"""Filters and networks on many images: what enlarges an image, and rows that grow in a file.

Rows carry a digest of the weights that they belong to. A measurement that was broken off goes on where it
stopped, and what a network says is measured again when its weights are no longer those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn
from tqdm import tqdm

from taylorir.datasets import NamedImage
from taylorir.evaluation import BICUBIC, load_model, super_resolve
from taylorir.experiments.plan import Comparison
from taylorir.networks import weights_digest
from taylorir.rows import read_rows, write_rows

LANCZOS = "lanczos"
#: What enlarges an image without having learnt anything.
FILTERS = (BICUBIC, LANCZOS)


def enlarge(model: nn.Module | str, lr: np.ndarray, upscale: int) -> np.ndarray:
    """One image by a network or by a filter.

    Args:
        model: a network, or one of ``FILTERS``. Lanczos is Pillow's, over three pixels to each side.
        lr: uint8 ``[H, W, 3]``.
        upscale: s.

    Returns:
        uint8 ``[sH, sW, 3]``.
    """
    if isinstance(model, str) and model == LANCZOS:
        size = (lr.shape[1] * upscale, lr.shape[0] * upscale)
        return np.array(Image.fromarray(lr).resize(size, Image.Resampling.LANCZOS))
    return super_resolve(model, lr, upscale=upscale)


def named_models(names: Iterable[str]) -> dict[str, nn.Module | str]:
    """Models by name: filters as they are called, networks loaded."""
    return {name: name if name in FILTERS else load_model(name) for name in names}


def models_by_kind(pair: Comparison) -> dict[str, list[str]]:
    """Names of models by what readers call them: both filters, a floor if there is one, the pair."""
    kinds = {"bicubic": [BICUBIC], "Lanczos": [LANCZOS], "no transformer": [*pair.floor]}
    kinds |= {"SwinIR": [*pair.reference], "TaylorSwinIR": [*pair.other]}
    return {kind: names for kind, names in kinds.items() if names}


def digest_of(model: nn.Module | str) -> str:
    """What the column weights says: the digest of a network, or the filter's own name."""
    return model if isinstance(model, str) else weights_digest(model)


def grow_rows(
    out: Path,
    models: Mapping[str, nn.Module | str],
    images: Iterable[NamedImage],
    measure: Callable[[str, nn.Module | str, NamedImage], pd.DataFrame],
    *,
    same: Mapping[str, object],
    progress: bool = False,
) -> None:
    """Measure each model on each image, in a file that is whole after every one of them.

    Args:
        out: CSV; rows that are in it already stay, but for those of other weights under the same name.
        models: by name, as :func:`named_models` gives them.
        images: what is measured on.
        measure: the rows of one model (its name, itself) and image; columns model, image and weights among
            them.
        same: columns that tell these rows from others of the file, as set and upscale, and their values.
        progress: show a bar.
    """
    rows = read_rows(out.resolve()) if out.exists() else pd.DataFrame()
    digests = {name: digest_of(model) for name, model in models.items()}
    if len(rows):
        rows = rows[rows["weights"] == rows["model"].map(digests).fillna(rows["weights"])]
    alike = rows[(rows[list(same)] == pd.Series(same)).all(axis=1)] if len(rows) else rows
    done = {*alike[["model", "image"]].itertuples(index=False, name=None)} if len(alike) else set()
    wanted = [(name, image) for image in images for name in models if (name, image.name) not in done]
    for name, image in tqdm(wanted, desc=str(out.stem), disable=not progress):
        new = measure(name, models[name], image)
        rows = pd.concat([rows, new], ignore_index=True) if len(rows) else new
        write_rows(out, rows)
