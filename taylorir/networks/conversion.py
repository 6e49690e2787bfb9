"""``taylorize`` for SwinIR: TaylorShift in place of softmax in a network that is there already.

Networks of others, and networks of which a part is to stay, are converted by :mod:`taylorir.convert`.
"""

from __future__ import annotations

import copy
import dataclasses

from torch import nn

from taylorir.networks.swinir import SwinIR, SwinTransformerBlock
from taylorir.networks.taylorswinir import TaylorSwinIR


def taylorize(
    model: SwinIR,
    *,
    window_size: int | None = None,
    position: str | None = None,
    temperature: float = 1.0,
    centre_keys: bool = False,
) -> TaylorSwinIR:
    """A copy of a SwinIR as a TaylorSwinIR: TaylorShift replaces softmax, all else is kept.

    Kept are q, k, v, projections, norms, MLPs and convolutions, as the modules that they are (with adapters,
    if they have any), each with its dtype, device, ``requires_grad`` and mode. A table of position biases has
    no counterpart and is dropped. New are the temperatures, and the position where the network had none; they
    can be trained. The weights fit softmax, so train on before judging the result.

    Args:
        model: the network; it is not changed.
        window_size: a new window, in tokens; default that of ``model``.
        position: "none", "rope", "lepe" or "rib"; default that of ``model``, or "none" where it has a bias.
        temperature: of every head, where ``model`` has no temperatures of its own.
        centre_keys: as in :class:`~taylorir.networks.ModelConfig`; a network that centres them goes on.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it is no SwinIR of this project.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(model, SwinIR):
        raise ValueError(
            f"cannot taylorize {type(model).__name__} here: taylorir.networks knows its own SwinIR; networks "
            "of others are for taylorir.convert.taylorize"
        )
    config = model.config
    if position is None:
        position = "none" if config.position == "bias" else config.position
    config = dataclasses.replace(
        config,
        attention="taylor",
        position=position,
        window_size=window_size or config.window_size,
        centre_keys=centre_keys or config.centre_keys,
    )
    taylor, kept = TaylorSwinIR(config), copy.deepcopy(model)
    for new, old in zip(_blocks(taylor), _blocks(kept), strict=True):
        new.attn.to(old.norm1.weight.device, old.norm1.weight.dtype).train(old.attn.training)
        nn.init.constant_(new.attn.temperature, temperature)
        for name in ("qkv", "proj", "lepe", "rib", "temperature"):
            if getattr(old.attn, name, None) is not None and getattr(new.attn, name) is not None:
                setattr(new.attn, name, getattr(old.attn, name))
        old.attn = new.attn
    for name, module in kept.named_children():
        setattr(taylor, name, module)
    taylor.mean, taylor.training = kept.mean, kept.training
    return taylor


def _blocks(model: SwinIR) -> list[SwinTransformerBlock]:
    return [block for layer in model.layers for block in layer.residual_group.blocks]
