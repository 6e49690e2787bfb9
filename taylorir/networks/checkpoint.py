"""Weights and training state on disk: safetensors beside JSON, written whole or not at all.

A checkpoint is two files, ``step_00000200.safetensors`` and ``step_00000200.json``. The tensors are written
first; the JSON, which holds their size and SHA-256, is renamed into place last and is what makes the
checkpoint exist. So a run killed at any moment leaves either a whole checkpoint or none.

A weights file (what training ends with, and what ``data/weights`` holds) is one safetensors file with the
record in its header; the JSON beside it says the same to human readers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from taylorir.networks.config import ModelConfig, config_from_json, config_to_json
from taylorir.networks.variants import build_from_config
from taylorir.rows import write_atomic

logger = logging.getLogger(__name__)

_HEADER_KEY = "taylorir"
_MODEL, _EMA, _OPTIMIZER, _RNG = "model.", "ema.", "optimizer.", "rng."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: the safetensors file.
        tensors: name to tensor, on the CPU. Names begin with ``model.``, ``ema.``, ``optimizer.`` or
            ``rng.``.
        record: the JSON part: step, model and training configuration, data fingerprint, commit and more.
    """

    path: Path
    tensors: dict[str, Tensor]
    record: dict

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one part (``"model."`` and so on), the prefix taken off."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    @property
    def config(self) -> ModelConfig:
        """The configuration of the network."""
        return config_from_json(json.dumps(self.record["model"]))


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], record: dict, *, keep: int
) -> Path:
    """Write a checkpoint and then remove all but the last ``keep``, and any of a later step.

    Returns:
        The path of the safetensors file.

    Raises:
        OSError: it cannot be written (disk full, no permission); earlier checkpoints are as they were.
    """
    path = folder / f"step_{step:08d}.safetensors"
    content = _to_bytes(tensors, record)
    digest = hashlib.sha256(content).hexdigest()
    _write(path, content)
    try:
        described = {**record, "bytes": len(content), "sha256": digest}
        _write(path.with_suffix(".json"), (json.dumps(described, indent=2) + "\n").encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    earlier = [file for file in checkpoint_files(folder) if file.name < path.name]
    later = [
        file for file in checkpoint_files(folder) if file.name > path.name
    ]  # damaged: the run began before
    for old in [*earlier[: max(len(earlier) - keep + 1, 0)], *later]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def save_weights(path: Path, model: nn.Module, record: dict) -> Path:
    """Write the parameters of a network, float32, with its configuration and ``record`` in the header and as
    JSON.

    Raises:
        OSError: a file cannot be written.
    """
    record = {"model": json.loads(config_to_json(model.config)), **record}
    weights = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    _write(path, _to_bytes(weights, record))
    _write(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    return path


def checkpoint_files(folder: Path) -> list[Path]:
    """The committed checkpoints of a folder, oldest first."""
    return [path.with_suffix(".safetensors") for path in sorted(folder.glob("step_*.json"))]


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left: half-written files, and tensors whose JSON was never written."""
    for partial in folder.glob(".step_*.part"):
        partial.unlink(missing_ok=True)
    for tensors in folder.glob("step_*.safetensors"):
        if not tensors.with_suffix(".json").exists():
            tensors.unlink()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check its size and SHA-256.

    Raises:
        ValueError: the files are damaged, or are no checkpoint of this package.
        OSError: a file cannot be read.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        expected = record["sha256"]
        record["step"], record["model"], record["train"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path.with_suffix('.json')} is damaged: not the record of a checkpoint") from None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        size = record.get("bytes")
        raise ValueError(f"{path} is damaged: {len(content)} bytes, {size} expected, and the SHA-256 differs")
    tensors, _ = _read_tensors(path)
    return Checkpoint(path, tensors, record)


def latest_checkpoint(folder: Path) -> Checkpoint:
    """The newest checkpoint of a folder that can be read; a damaged one is passed over with a warning.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: it holds some, but all are damaged.
    """
    files = checkpoint_files(folder)
    if not files:
        raise FileNotFoundError(f"there is no checkpoint in {folder}")
    reason = ""
    for path in reversed(files):
        try:
            return read_checkpoint(path)
        except (ValueError, FileNotFoundError) as error:
            reason = reason or str(error)
            if path != files[0]:
                logger.warning("%s; falling back to the checkpoint before it", error)
    raise ValueError(f"no checkpoint in {folder} can be read; the newest: {reason}")


def load_checkpoint(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a weights file, a checkpoint (its EMA weights) or a training folder (its newest
    checkpoint).

    Args:
        path: a ``.safetensors`` file made by this package, or a folder that ``taylorir train`` wrote.
        device: where the network shall live.

    Returns:
        The network in evaluation mode; ``model.config`` says what it is.

    Raises:
        FileNotFoundError: no such file, or no checkpoint in the folder.
        ValueError: not a weights file of this package, damaged, or the weights do not fit the stated
            architecture.
    """
    path = Path(path)
    if path.is_dir():
        found = latest_checkpoint(path)
        path, tensors, record = found.path, found.tensors, found.record
    elif not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    else:
        tensors, record = _read_tensors(path)
    if any(name.startswith(_EMA) for name in tensors):
        tensors = {n.removeprefix(_EMA): t for n, t in tensors.items() if n.startswith(_EMA)}
    config = config_from_json(json.dumps(record.get("model")))
    model = build_from_config(config)
    fit_weights(model, tensors, path)
    return model.to(device).eval()


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str | os.PathLike) -> None:
    """Copy ``weights`` into the parameters of ``model``; names and shapes must be the same.

    Raises:
        ValueError: another architecture; one line names the first difference.
    """
    own = dict(model.named_parameters())
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        which = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which the network lacks"
        raise ValueError(f"{source} is of another architecture than {type(model).__name__}: it {which}")
    for name, parameter in own.items():
        if weights[name].shape != parameter.shape:
            raise ValueError(
                f"{source} is of another architecture: {name} has shape {list(weights[name].shape)}, "
                f"{list(parameter.shape)} expected"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def pack_state(
    model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> dict[str, Tensor]:
    """All tensors of a training state under the prefixes of :class:`Checkpoint`.

    Args:
        model: the network that is trained; ``optimizer`` has its parameters in their order, in one group.
        averaged: the same network with the averaged weights.
    """
    tensors = {_MODEL + name: p for name, p in model.named_parameters()}
    tensors |= {_EMA + name: p for name, p in averaged.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{key}.{name}"] = torch.as_tensor(value)
    tensors[_RNG + "cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors[_RNG + "cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def unpack_state(
    checkpoint: Checkpoint,
    model: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    """The inverse of :func:`pack_state`, in place.

    Raises:
        ValueError: the checkpoint is of another architecture.
    """
    fit_weights(model, checkpoint.part(_MODEL), checkpoint.path)
    fit_weights(averaged, checkpoint.part(_EMA), checkpoint.path)
    moments = checkpoint.part(_OPTIMIZER)
    keys = {name.partition(".")[0] for name in moments}
    names = [name for name, _ in model.named_parameters()]
    state = {i: {key: moments[f"{key}.{name}"] for key in keys} for i, name in enumerate(names)}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    states = checkpoint.part(_RNG)
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _to_bytes(tensors: Mapping[str, Tensor], record: dict) -> bytes:
    """safetensors content; tensors that share memory are copied apart."""
    separate = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save(separate, metadata={_HEADER_KEY: json.dumps(record, sort_keys=True)})


def _write(path: Path, content: bytes) -> None:
    def write(file) -> None:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

    write_atomic(path, write)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and record of a safetensors file of this package."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if header is None and path.with_suffix(".json").exists():
            header = path.with_suffix(".json").read_text()
        record = json.loads(header) if header else None
    except (SafetensorError, ValueError, UnicodeDecodeError):
        raise ValueError(f"{path} is no readable safetensors file; it may be damaged or cut short") from None
    if not isinstance(record, dict) or "model" not in record:
        raise ValueError(f"{path} does not say which network it is for: no 'model' in its header or JSON")
    return tensors, record
