"""Weights into a network: names, shapes and values are checked before memory is taken or anything copied."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from taylorir.networks.config import ModelConfig
from taylorir.networks.swinir import OFFICIAL_BUFFERS, SwinIR
from taylorir.networks.variants import build_from_config


class ArchitectureError(ValueError):
    """The weights are not of the network that they were taken for."""


LARGEST_SIDE = 2**16  # of an embedding, a window or a crop that a file may ask for


def build_with(config: ModelConfig, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> SwinIR:
    """The network of a configuration with these weights; the buffers of the authors' files are left aside.

    A configuration that asks for more than the weights hold is refused before memory is taken for it.

    Raises:
        ValueError: as :func:`fit_weights`.
    """
    weights = {name: value for name, value in weights.items() if not name.endswith(OFFICIAL_BUFFERS)}
    side = max(config.embed_dim, config.window_size, config.img_size)
    if side > LARGEST_SIDE or sum(config.depths) > len(weights):
        raise ArchitectureError(
            f"{source} is of another architecture: {len(weights)} tensors for {sum(config.depths)} blocks, "
            f"{config.embed_dim} channels, windows of {config.window_size} and crops of {config.img_size}"
        )
    with torch.device("meta"):
        _check(build_from_config(config), weights, source)
    model = build_from_config(config)
    fit_weights(model, weights, source)
    return model


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Copy ``weights`` into the parameters of ``model``; names and shapes must be the same.

    Raises:
        ValueError: another architecture (:class:`ArchitectureError`), or values that are no weights; one
            line names the first.
    """
    _check(model, weights, source)
    check_values(weights, source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def check_values(weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Raises: ValueError: values that are no weights: not floating-point, not finite."""
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.layout != torch.strided or weight.is_meta:
            kind = f"{weight.dtype}, {weight.layout}, on {weight.device}"
            raise ValueError(f"{source} holds no weights: {name} is {kind}")
        once = weight[tuple(slice(1) if step == 0 else slice(None) for step in weight.stride())]
        if not once.float().isfinite().all():
            raise ValueError(f"{source} is damaged, or of a training that diverged: {name} is not finite")


def _check(model: nn.Module, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    own = dict(model.named_parameters())
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        which = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which the network lacks"
        raise ArchitectureError(
            f"{source} is of another architecture than {type(model).__name__}: it {which}"
        )
    for name, parameter in own.items():
        if weights[name].shape != parameter.shape:
            raise ArchitectureError(
                f"{source} is of another architecture: {name} has shape {list(weights[name].shape)}, "
                f"{list(parameter.shape)} expected"
            )
