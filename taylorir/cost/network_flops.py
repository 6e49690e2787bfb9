"""Operations of any network, counted on a copy without contents, and what it costs in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from taylorir.cost.memory import MODES
from taylorir.cost.network_memory import memory_of, without_contents
from taylorir.networks import kept_apart
from taylorir.rows import provenance


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(
    dy: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(dy, q, k, v)


UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Fused attention on a CPU, which PyTorch's own counter passes over: operations from shapes."""


def flops_of(model: nn.Module, lr_size: int, mode: str = "infer", *, batch: int = 1) -> int:
    """Operations in the products and convolutions of one pass, without running or changing the network.

    A multiplication and an addition count as two. Element-wise work is not counted.

    Args:
        model: as for :func:`taylorir.cost.memory_of`.
        lr_size: side of the LR image.
        mode: "infer" (forward), or "train" (forward and backward).
        batch: images.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    train = mode == "train"
    with without_contents(model, lr_size, batch) as (copy, lr), kept_apart():
        copy.train(train)
        with torch.no_grad():
            copy(lr)  # for what PyTorch and the network make on first use
        with (
            torch.set_grad_enabled(train),
            FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter,
        ):
            sr = copy(lr)
            if train:
                sr.sum().backward()
    return counter.get_total_flops()


def cost_rows(
    models: Mapping[str, nn.Module],
    lr_sizes: Sequence[int],
    modes: Sequence[str] = ("infer",),
    *,
    batch: int = 1,
) -> pd.DataFrame:
    """What networks of any kind cost on square LR images, counted, not run: a row a network, size and mode.

    Args:
        models: by name; each says its ``config.upscale``.
        lr_sizes: sides of the LR images.
        modes: "infer", "train".
        batch: images; a network that normalises over a batch needs two to train.

    Returns:
        Columns model, upscale, parameters, lr_size, mode, batch, gflops, peak_memory_mib and the provenance.

    Raises:
        ValueError: an unknown mode.
    """
    rows = [
        {
            "model": name,
            "upscale": model.config.upscale,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "lr_size": lr_size,
            "mode": mode,
            "batch": batch,
            "gflops": flops_of(model, lr_size, mode, batch=batch) / 1e9,
            "peak_memory_mib": memory_of(model, lr_size, mode, batch=batch).total / 2**20,
            **provenance(),
        }
        for name, model in models.items()
        for lr_size in lr_sizes
        for mode in modes
    ]
    return pd.DataFrame(rows)
