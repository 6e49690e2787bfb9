"""``taylorize``: TaylorShift in place of softmax in a network that is there already, all else kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from taylorir.convert.adapted import Adapted, adapted
from taylorir.convert.operator import TaylorAttention
from taylorir.convert.sites import survey
from taylorir.convert.table import adapter_of
from taylorir.networks import (
    CONVERTED,
    SwinIR,
    WindowAttention,
    image_channels,
    taylorize as taylorize_swinir,
)

PROBE = (64, 64)
"""Height and width of the image that a network without known modules is surveyed with."""


def taylorize(
    model: nn.Module,
    *,
    keep: Sequence[str] = (),
    temperature: float = 1.0,
    centre_keys: bool = False,
    window_size: int | tuple[int, int] | None = None,
    position: str | None = None,
) -> nn.Module:
    """A copy of a network in which TaylorShift replaces softmax between tokens; all else is kept.

    It is a new network, not an approximation of the old one: its weights fit softmax, so train on before
    judging it. Kept are q, k, v, projections, norms, MLPs and convolutions, as the modules that they are,
    under their names, each with its dtype, device, ``requires_grad`` and mode. A position bias has no
    counterpart and is dropped, as are index maps and masks; dropout of weights has none either. New is a
    temperature for each head, which can be trained.

    Args:
        model: SwinIR of this project, which becomes a TaylorSwinIR, or a network made of modules that
            ``taylorir.convert.table.ADAPTERS`` knows. It is not changed.
        keep: names of modules, as ``model.named_modules()`` has them; what they are or contain stays
            softmax.
        temperature: of every head.
        centre_keys: subtract from the keys the mean of their region. Softmax would not see it.
        window_size: new windows of the converted modules, in tokens, a number or (rows, columns); default
            those of ``model``.
        position: "none", "rope" or "lepe" for SwinIR of this project; see
            :func:`taylorir.networks.taylorize`.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: nothing in it is known here, and why for each attention; ``keep`` names no module; or the
            windows cannot change so.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name in keep:
        if name not in dict(model.named_modules()):
            raise ValueError(f"keep names no module of {type(model).__name__}: {name!r}")
    if isinstance(model, SwinIR):
        settings = {"position": position, "temperature": temperature, "centre_keys": centre_keys}
        return _with_kept(taylorize_swinir(model, window_size=window_size, **settings), model, keep)
    if position not in (None, "none"):
        raise ValueError(f"position must be 'none' for {type(model).__name__}, got {position!r}")
    model = copy.deepcopy(model)
    found = {name: module for name, module in model.named_modules() if adapter_of(module)}
    sites = {name for name, module in found.items() if issubclass(adapter_of(module), TaylorAttention)}
    kept = {name for name in sites if any(_is_within(name, outer) for outer in keep)}
    if not sites - kept:
        raise ValueError(f"cannot taylorize {type(model).__name__}: {_why_none(model, sites)}")
    # a block goes on making masks for what is kept
    hosts = {
        name
        for name, module in found.items()
        if issubclass(adapter_of(module), Adapted) and any(_is_within(site, name) for site in kept)
    }
    if window_size is not None:
        if all(adapter_of(found[name]).kind == "global" for name in sites - kept):
            raise ValueError(f"window_size must be None: {type(model).__name__} attends over whole images")
        for name in sites - kept:
            if any(_is_within(name, host) for host in hosts):
                raise ValueError(f"{name} cannot take a new window, as its block keeps softmax beside it")
    _note(model, keep, temperature=temperature, centre_keys=centre_keys, window_size=window_size)
    made = {}
    for name, module in found.items():
        if name in hosts:
            continue
        adapter = adapter_of(module)
        like = next(p for p in (*module.parameters(), *model.parameters()) if p.is_floating_point())
        if issubclass(adapter, Adapted):
            made[module] = adapted(module, adapter)
        if name in sites:
            made[module].set_temperatures(temperature, centre_keys, like)
        if window_size is not None:
            window = (window_size,) * 2 if isinstance(window_size, int) else tuple(window_size)
            adapter.set_window(made.get(module, module), window)
    return _exchanged(model, made)


def _exchanged(model: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """The network with modules in the place of others; modules used twice stay one."""
    model = made.get(model, model)
    for module in model.modules():
        for name, child in module._modules.items():
            module._modules[name] = made.get(child, child)
    return model


def _note(model: nn.Module, keep: Sequence[str], **settings: object) -> None:
    """Write into the configuration of a network of transformers how it is converted: it is saved with it.

    What is kept has the windows that there were before, so they are noted too.
    """
    for name, module in model.named_modules():
        if hasattr(module, "save_pretrained"):
            settings["keep"] = [site.removeprefix(f"{name}.") if name else site for site in keep]
            settings["built_with_window"] = getattr(module.config, "window_size", None)
            setattr(module.config, CONVERTED, settings)
            return


def _is_within(name: str, outer: str) -> bool:
    return outer == "" or name == outer or name.startswith(f"{outer}.")


def _with_kept(taylor: SwinIR, model: SwinIR, keep: Sequence[str]) -> SwinIR:
    """The converted SwinIR with the attention of the original where it is to be kept."""
    for name, module in model.named_modules():
        if isinstance(module, WindowAttention) and any(_is_within(name, outer) for outer in keep):
            if module.window_size != taylor.config.window_size:
                raise ValueError(f"{name} cannot be kept, as its windows change with window_size")
            taylor.get_submodule(name.rpartition(".")[0]).attn = copy.deepcopy(module)
    return taylor


def _why_none(model: nn.Module, sites: set[str]) -> str:
    if sites:
        return "all its attention is kept"
    if any(isinstance(module, Adapted) for module in model.modules()):
        return "it is converted already"
    try:
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(()))
        found = survey(model, torch.rand(1, image_channels(model), *PROBE, dtype=like.dtype))
    except Exception as error:  # whatever stops a network that no one knows, at a size that was guessed
        return f"no module in it is known, and an image of {PROBE} cannot be run to survey it: {error}"
    if found.empty:
        return "no module in it attends by softmax"
    notes = found.drop_duplicates(["class", "note"]).itertuples()
    return "; ".join(f"{site.module} ({site[2]}): {site.note}" for site in notes)
