"""Peak memory of one step of any network, counted on a copy without contents."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from taylorir.attention.kernels.segments import executing
from taylorir.cost.allocations import cuda_attention_kernels
from taylorir.cost.memory import MODES, MemoryPeak, bytes_of, record_step
from taylorir.cost.tracing import KnownRegions
from taylorir.networks import SwinIR, kept_apart


def memory_of(
    model: nn.Module, lr_size: int, mode: str = "train", *, batch: int = 1, cuda_kernels: bool = True
) -> MemoryPeak:
    """Peak memory of one step: exact bytes of tensors, without running the network or changing it.

    Args:
        model: any network from ``[B, 3, H, W]`` to ``[B, 3, sH, sW]``, on any device. What it computes must
            not depend on the values that it sees.
        lr_size: side of the LR image.
        mode: "train" (forward, L1 loss, backward, Adam over all parameters) or "infer".
        batch: images.
        cuda_kernels: fused attention allocates as PyTorch's CUDA kernels do, else as on the CPU.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fake):
        model = copy.deepcopy(model)
    kernels = cuda_attention_kernels() if cuda_kernels else nullcontext()
    with fake, kernels, _regions(model, lr_size, batch):
        weight = next(model.parameters(), torch.zeros(()))
        lr = torch.rand(batch, 3, lr_size, lr_size, dtype=weight.dtype, device=weight.device)
        with kept_apart(), torch.no_grad():  # for the size, and for what PyTorch imports on first use
            hr = torch.rand_like(model(lr))
        with kept_apart():
            trace = record_step(model, lr, hr if mode == "train" else None, quick=True)
    return trace.peak(bytes_of(model.parameters()), bytes_of(model.buffers()))


def _regions(model: nn.Module, lr_size: int, batch: int) -> AbstractContextManager:
    """What our own networks know of their windows from values, which fake tensors do not have."""
    if not isinstance(model, SwinIR):
        return nullcontext()
    window = model.config.window_size
    return executing(KnownRegions(batch, -(-lr_size // window) * window, window))
