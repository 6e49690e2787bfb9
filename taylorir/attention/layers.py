"""What a block of a transformer does to each token alone: norm, linear layers, GELU, residual, in one pass.

On a CPU, for a result that needs no gradients, this is a kernel of our own
(``kernels/cpp/layers_operator.cpp``), built like those of attention and by the same means: between its first
and its last number a token stays in the processor's cache. Elsewhere these are PyTorch's layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from taylorir.attention.softmax import softmax_has_kernels


def token_layers(
    x: Tensor,
    first: nn.Linear,
    second: nn.Linear | None = None,
    *,
    norm: nn.LayerNorm | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """residual + second(gelu(first(norm(x)))) of each token; all but ``first`` may be missing.

    Args:
        x: [..., C].
        first, second: linear layers; without the second, no GELU either.
        norm: over C.
        residual: [..., C_out].

    Returns:
        [..., C_out], of the dtype that the layers give.
    """
    layers = [layer for layer in (norm, first, second) if layer is not None]
    if _has_kernel(x, layers, residual):
        y = x.new_empty(*x.shape[:-1], layers[-1].out_features)
        ends = (None, None) if norm is None else (norm.weight, norm.bias)
        last = (None, None) if second is None else (second.weight, second.bias)
        torch.ops.taylorir_cpp.layers(
            x.flatten(0, -2),
            *ends,
            0.0 if norm is None else norm.eps,
            first.weight,
            first.bias,
            *last,
            None if residual is None else residual.flatten(0, -2),
            y.flatten(0, -2),
        )
        return y
    y = first(x if norm is None else norm(x))
    if second is not None:
        y = second(functional.gelu(y))
    return y if residual is None else residual + y


def _has_kernel(x: Tensor, layers: list[nn.Module], residual: Tensor | None) -> bool:
    """Whether the kernel takes these layers on this input: plain ones in float32, no gradient asked for."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.ndim < 2:
        return False
    if not all(map(_is_plain, layers)):
        return False
    given = [x] if residual is None else [x, residual]
    tensors = [*given, *(parameter for layer in layers for parameter in layer.parameters())]
    if not all(tensor.dtype == torch.float32 and tensor.is_cpu for tensor in tensors):
        return False
    return _fit(x, layers, residual) and softmax_has_kernels(x)


def _fit(x: Tensor, layers: list[nn.Module], residual: Tensor | None) -> bool:
    """Whether all widths agree; where they do not, the layers say what is wrong, or spread the residual."""
    width = x.shape[-1]
    for layer in layers:
        if layer.weight.shape[-1] != width or layer.weight.ndim != 1 + isinstance(layer, nn.Linear):
            return False
        width = width if isinstance(layer, nn.LayerNorm) else layer.weight.shape[0]
    return residual is None or residual.shape == (*x.shape[:-1], width)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer does what its class says and no more: no hook waits for what goes in or comes out."""
    hooks = (
        layer._forward_hooks or layer._forward_pre_hooks or _global_forward_hooks or _global_forward_pre_hooks
    )
    return type(layer) in (nn.Linear, nn.LayerNorm) and layer.bias is not None and not hooks
