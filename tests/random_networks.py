"""Networks for tests."""

from __future__ import annotations

import torch
from torch import nn


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every parameter at random, the same for the same seed.

    None is left at the zero or one that it begins with, so that none can be forgotten unseen.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if "temperature" in name:
                value = 1 + value.tanh() / 2
            elif parameter.ndim == 1:
                value = 0.2 * value + ("norm" in name and name.endswith("weight"))
            elif "bias_table" not in name and parameter.numel():
                value = value / parameter[0].numel() ** 0.5
            parameter.copy_(value)
    return model
