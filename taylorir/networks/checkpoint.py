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
from safetensors.torch import save
from torch import Tensor, nn

from taylorir.networks.config import ModelConfig, config_from_json, config_to_json
from taylorir.networks.fitting import ArchitectureError, build_with, fit_weights
from taylorir.networks.foreign import build_foreign, is_transformers_folder, load_transformers
from taylorir.networks.released import build_official, official_names
from taylorir.networks.swinir import OFFICIAL_BUFFERS
from taylorir.networks.tensor_files import LARGEST_RECORD, RECORD_KEY, parse_record, read_tensors
from taylorir.rows import one_line, write_atomic

logger = logging.getLogger(__name__)

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
        return _config_of(self.record, self.path)


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
    write_atomic(path, lambda file: file.write(content))
    try:
        described = {**record, "bytes": len(content), "sha256": digest}
        text = (json.dumps(described, indent=2) + "\n").encode()
        write_atomic(path.with_suffix(".json"), lambda file: file.write(text))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    remove_old_checkpoints(folder, step, keep=keep)
    return path


def remove_old_checkpoints(folder: Path, step: int, *, keep: int) -> None:
    """Remove all but the last ``keep`` checkpoints up to ``step``, and those of later steps.

    Those of later steps are damaged: the run began again before them.
    """
    files, newest = checkpoint_files(folder), f"step_{step:08d}.safetensors"
    later = [file for file in files if file.name > newest]
    for old in [*files[: max(len(files) - len(later) - keep, 0)], *later]:
        old.with_suffix(".json").unlink()
    for tensors in folder.glob("step_*.safetensors"):
        if not tensors.with_suffix(".json").exists():  # also of a removal that was cut short
            tensors.unlink()


def save_weights(path: Path, model: nn.Module, record: dict) -> Path:
    """Write the parameters of a network, float32, with its configuration and ``record`` in the header and as
    JSON. A file that holds just this already stays untouched.

    A SwinIR is written with the buffers of its authors' files, so that other programs take it for what it is;
    as small integers, which loading turns into what these programs have there.

    Raises:
        OSError: a file cannot be written.
    """
    record = {"model": json.loads(config_to_json(model.config)), **record}
    weights = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    for name, value in model.state_dict().items():
        if name.endswith(OFFICIAL_BUFFERS):
            weights[name] = value.to(torch.int8 if name.endswith("attn_mask") else torch.int16)
    _write_new(path, _to_bytes(weights, record))
    _write_new(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    return path


def checkpoint_files(folder: Path) -> list[Path]:
    """The committed checkpoints of a folder, oldest first."""
    return [path.with_suffix(".safetensors") for path in sorted(folder.glob("step_*.json"))]


def remove_leftovers(folder: Path) -> None:
    """Remove tensors that a killed process left, whose JSON was never written."""
    for tensors in folder.glob("step_*.safetensors"):
        if not tensors.with_suffix(".json").exists():
            tensors.unlink()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check its SHA-256. The record is that of the tensors' header, which it seals.

    Raises:
        ValueError: the files are damaged, or are no checkpoint of this package.
        OSError: a file cannot be read.
    """
    described = _read_json(path.with_suffix(".json"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != described.get("sha256"):
        raise ValueError(
            f"{path} is damaged: {path.stat().st_size} bytes, {described.get('bytes')!r:.20} expected, "
            "and the SHA-256 differs"
        )
    tensors, record = read_tensors(path)
    record = record or {}
    step = record.get("step")
    if type(step) is not int or step < 0 or not {"model", "train"} <= record.keys():
        raise ValueError(f"{path} is damaged: its header holds no record of a checkpoint")
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


def load_checkpoint(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a weights file, a checkpoint (its EMA weights) or a training folder (its newest
    checkpoint).

    Args:
        path: a ``.safetensors`` file made by this package, a folder that ``taylorir train`` wrote, or a file
            of official SwinIR weights under the levels and prefixes that trainers put around them. Where
            spandrel is installed, a file of another architecture that it knows; where transformers is, a
            folder of a Swin2SR that ``save_pretrained`` wrote.
        device: where the network shall live.

    Returns:
        The network in evaluation mode; ``model.config`` says what it is.

    Raises:
        FileNotFoundError: no such file, or no checkpoint in the folder.
        ValueError: no weights file, damaged, or the weights do not fit the stated architecture.
    """
    path = Path(path)
    if path.is_dir() and is_transformers_folder(path):
        return load_transformers(path).to(device)
    if path.is_dir():
        found = latest_checkpoint(path)
        path, tensors, record = found.path, found.tensors, found.record
    else:
        tensors, record = read_tensors(path)
    if record is None and path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        record = _read_json(path.with_suffix(".json"))
    if record is None:
        return _build_released(tensors, path).to(device)
    if any(name.startswith(_EMA) for name in tensors):
        tensors = {n.removeprefix(_EMA): t for n, t in tensors.items() if n.startswith(_EMA)}
    return build_with(_config_of(record, path), tensors, path).to(device).eval()


def _build_released(tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """A SwinIR of official weights, else what spandrel makes of them."""
    try:
        return build_official(official_names(tensors), path)
    except ArchitectureError as error:
        try:
            return build_foreign(tensors, path)
        except ValueError as other:
            raise ArchitectureError(f"{error}; {other}") from None


def read_record(path: Path) -> dict:
    """What a weights file says of its training: model and training configuration, seconds, device and more.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no weights file of this package.
    """
    record = read_tensors(path)[1]
    if record is None:
        raise ValueError(f"{path} does not say how it was trained: its header has no record")
    return record


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
        ValueError: the checkpoint is of another architecture, or lacks a part.
    """
    fit_weights(model, checkpoint.part(_MODEL), checkpoint.path)
    fit_weights(averaged, checkpoint.part(_EMA), checkpoint.path)
    moments, random = checkpoint.part(_OPTIMIZER), checkpoint.part(_RNG)
    keys = {name.partition(".")[0] for name in moments}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for i, (name, parameter) in enumerate(model.named_parameters()):
            state[i] = {key: moments[f"{key}.{name}"] for key in keys}
            if any(value.ndim and value.shape != parameter.shape for value in state[i].values()):
                raise ValueError(f"the optimiser's state of {name} has another shape")
        torch.set_rng_state(random["cpu"])
        if device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{checkpoint.path} is damaged: {one_line(error)[:200]}") from None
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _to_bytes(tensors: Mapping[str, Tensor], record: dict) -> bytes:
    """safetensors content; tensors that share memory are copied apart."""
    separate = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save(separate, metadata={RECORD_KEY: json.dumps(record)})


def _read_json(path: Path) -> dict:
    with path.open("rb") as file:
        return parse_record(file.read(LARGEST_RECORD + 1), path)


def _config_of(record: dict, source: Path) -> ModelConfig:
    try:
        return config_from_json(json.dumps(record.get("model")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{source} does not say which network it is for: {one_line(error)[:300]}") from None


def _write_new(path: Path, content: bytes) -> None:
    """Write, unless the file holds this already."""
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, lambda file: file.write(content))
