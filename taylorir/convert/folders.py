"""Converted networks of transformers on disk: saved as such, and loaded again as such.

``taylorize`` notes in the configuration of a network of transformers how it was converted, so that its own
``save_pretrained`` keeps it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from taylorir.convert.conversion import taylorize
from taylorir.convert.files import load_converted_file
from taylorir.evaluation import load_model
from taylorir.networks import (
    CONVERTED,
    ForeignNetwork,
    is_transformers_folder,
    read_tensors,
    read_transformers_config,
    swin2sr_class,
    wrap_swin2sr,
)

WEIGHTS = "model.safetensors"


def load_converted(folder: str | os.PathLike[str]) -> ForeignNetwork:
    """A converted Swin2SR that ``save_pretrained`` wrote, in evaluation mode.

    Raises:
        ValueError: transformers is not installed, another network, or one that was not converted.
        OSError: the folder is not complete.
    """
    folder = Path(folder)
    settings = read_transformers_config(folder).get(CONVERTED)
    if not isinstance(settings, dict):
        raise ValueError(f"{folder} holds a network that was not converted")
    kind = swin2sr_class(folder)
    config = kind.config_class.from_pretrained(folder)
    config.window_size = settings.pop("built_with_window")
    model = taylorize(kind(config), **settings)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    return wrap_swin2sr(model)


def load_any(name: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> nn.Module | str:
    """:func:`taylorir.evaluation.load_model`, and :func:`load_converted` of such a folder or file.

    Raises:
        ValueError, OSError: as these.
    """
    path = Path(name)
    if is_transformers_folder(path) and CONVERTED in read_transformers_config(path):
        return load_converted(path).to(device)
    if path.suffix == ".safetensors" and path.is_file() and CONVERTED in (read_tensors(path)[1] or {}):
        return load_converted_file(path).to(device)
    return load_model(name, device=device)
