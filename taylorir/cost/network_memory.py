"""Peak memory of one step of any network, counted on a copy without contents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from taylorir.attention.kernels.segments import executing
from taylorir.cost.allocations import cuda_attention_kernels
from taylorir.cost.memory import MODES, MemoryPeak, bytes_of, record_step
from taylorir.cost.tracing import KnownRegions, windows_as_wholes
from taylorir.networks import SwinIR, image_channels, kept_apart


def memory_of(
    model: nn.Module, lr_size: int, mode: str = "train", *, batch: int = 1, cuda_kernels: bool = True
) -> MemoryPeak:
    """Peak memory of one step: exact bytes of tensors, without running the network or changing it.

    Args:
        model: any network from ``[B, C, H, W]`` to ``[B, C, sH, sW]``, on any device, C being 3 or
            ``model.config.in_chans``. What it computes must not depend on the values that it sees.
        lr_size: side of the LR image.
        mode: "train" (forward, L1 loss, backward, Adam over all parameters) or "infer".
        batch: images.
        cuda_kernels: fused attention allocates as PyTorch's CUDA kernels do, else as on the CPU.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    kernels = cuda_attention_kernels() if cuda_kernels else nullcontext()
    with without_contents(model, lr_size, batch) as (model, lr), kernels:
        with kept_apart(), torch.no_grad():  # for the size, and for what PyTorch imports on first use
            hr = torch.rand_like(model(lr))
        with kept_apart():
            trace = record_step(model, lr, hr if mode == "train" else None, quick=True)
    return trace.peak(bytes_of(model.parameters()), bytes_of(model.buffers()))


@contextmanager
def without_contents(model: nn.Module, lr_size: int, batch: int) -> Iterator[tuple[nn.Module, Tensor]]:
    """A copy of a network and an LR image for it whose tensors have shapes, and no values, in the block."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fake):
        model = copy.deepcopy(model)
    with fake, _regions(model, lr_size, batch):
        weight = next(model.parameters(), torch.zeros(()))
        shape = (batch, image_channels(model), lr_size, lr_size)
        yield model, torch.rand(shape, dtype=weight.dtype, device=weight.device)


def _regions(model: nn.Module, lr_size: int, batch: int) -> AbstractContextManager:
    """What networks know of their shifted windows from values, which fake tensors do not have.

    Of a converted network of others the windows count as whole ones, which is nearly as costly.
    """
    if not isinstance(model, SwinIR):
        return windows_as_wholes()
    window = model.config.window_size
    return executing(KnownRegions(batch, -(-lr_size // window) * window, window))
