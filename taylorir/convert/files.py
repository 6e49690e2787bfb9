"""Converted networks of others in one file, from which they are built again.

Of a state dict spandrel tells the architecture, but not of a converted one, whose positions are gone. So the
file holds the original's tensors, what differs from them in the converted network, and how it was converted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from taylorir.convert.conversion import taylorize
from taylorir.networks import CONVERTED, RECORD_KEY, ForeignNetwork, build_foreign, read_tensors
from taylorir.rows import write_atomic

_ORIGINAL, _NEW = "original.", "converted."


def save_converted(
    path: str | os.PathLike[str], original: nn.Module, converted: nn.Module, settings: dict[str, object]
) -> None:
    """Write what :func:`load_converted_file` reads.

    Args:
        original: a network that spandrel builds from its state dict.
        converted: what ``taylorize(original, **settings)`` gave, trained on or not.

    Raises:
        OSError: the file cannot be written.
    """
    before, after = original.state_dict(), converted.state_dict()
    tensors = {_ORIGINAL + name: tensor for name, tensor in before.items()}
    for name, tensor in after.items():
        if name not in before or not torch.equal(tensor, before[name]):
            tensors[_NEW + name] = tensor
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = save(separate, metadata={RECORD_KEY: json.dumps({CONVERTED: settings})})
    write_atomic(Path(path), lambda file: file.write(content))


def load_converted_file(path: str | os.PathLike[str]) -> ForeignNetwork:
    """A converted network that :func:`save_converted` wrote, in evaluation mode.

    Raises:
        ValueError: another file, or spandrel is not installed.
        FileNotFoundError: there is none.
    """
    tensors, record = read_tensors(path)
    settings = (record or {}).get(CONVERTED)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no converted network of others")
    network = build_foreign(_part(tensors, _ORIGINAL), path)
    network.network = taylorize(network.network, **settings).eval()
    network.network.load_state_dict(network.network.state_dict() | _part(tensors, _NEW), strict=True)
    return network


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
