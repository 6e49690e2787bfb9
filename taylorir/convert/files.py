"""Converted networks of others in one file, from which they are built again.

Of a state dict spandrel tells the architecture, but not of a converted one, whose positions are gone. So the
file holds the original's tensors, what differs from them in the converted network, and how it was converted.
A SwinIR of this project that is converted in part has no configuration that says so, and is written alike.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from taylorir.convert.conversion import taylorize
from taylorir.networks import (
    CONVERTED,
    RECORD_KEY,
    ForeignNetwork,
    SwinIR,
    build_foreign,
    build_from_config,
    config_from_json,
    read_tensors,
)
from taylorir.rows import write_atomic

_ORIGINAL, _NEW = "original.", "converted."


def save_converted(
    path: str | os.PathLike[str], original: nn.Module, converted: nn.Module, settings: dict[str, object]
) -> None:
    """Write what :func:`load_converted_file` reads.

    Args:
        original: a network that spandrel builds from its state dict, or a SwinIR of this project.
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
    record = {CONVERTED: settings}
    if isinstance(original, SwinIR):
        record["model"] = dataclasses.asdict(original.config)
    content = save(separate, metadata={RECORD_KEY: json.dumps(record)})
    write_atomic(Path(path), lambda file: file.write(content))


def load_converted_file(path: str | os.PathLike[str]) -> ForeignNetwork | SwinIR:
    """A converted network that :func:`save_converted` wrote, in evaluation mode.

    Raises:
        ValueError: another file, or spandrel is not installed.
        FileNotFoundError: there is none.
    """
    tensors, record = read_tensors(path)
    settings = (record or {}).get(CONVERTED)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no converted network of others")
    original, new = _part(tensors, _ORIGINAL), _part(tensors, _NEW)
    if "model" in record:
        network = build_from_config(config_from_json(json.dumps(record["model"])))
        network.load_state_dict(original, strict=True)
        return _converted(network, settings, new)
    network = build_foreign(original, path)
    network.network = _converted(network.network, settings, new)
    return network


def _converted(network: nn.Module, settings: dict[str, object], new: dict[str, Tensor]) -> nn.Module:
    converted = taylorize(network, **settings).eval()
    converted.load_state_dict(converted.state_dict() | new, strict=True)
    return converted


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
