"""Softmax attention that keeps no N x M weights: the baseline that TaylorShift is to be compared with.

On a CPU these are kernels of our own (``kernels/cpp/softmax.h``), built like those of TaylorShift and by the
same means; they take a bias that learns, which PyTorch's fused kernel for CPUs does not. Elsewhere PyTorch's
fused attention serves. What is computed is :func:`taylorir.attention.softmax_attention`; shapes as there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from taylorir.attention.kernels.checks import (
    check_bias,
    check_qkv,
    check_regions,
    compute_dtype,
)
from taylorir.attention.kernels.cpp_operator import labels_of
from taylorir.attention.kernels.forms import Labels, backend_of
from taylorir.attention.kernels.placement import on_cpu
from taylorir.attention.kernels.segments import output_memory
from taylorir.attention.kernels.torch_operator import (
    gradients_by_definition,
    is_traced,
    is_transformed,
    to_be_differentiated,
)
from taylorir.attention.reference import softmax_attention

BACKENDS = ("auto", "torch", "cpp")


def softmax_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    regions: Tensor | tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Softmax attention in memory linear in N, in time quadratic (:eq:`eq-softmax`).

    Args:
        q: [..., H, N, d].
        k: [..., H, M, d].
        v: [..., H, M, d_v].
        bias: added to the scores, broadcast to [..., H, N, M]; it may have a gradient.
        regions: integer labels [..., N], or a pair of them, of queries and of keys; tokens attend within
            equal labels only, and one without any gets 0.
        backend: "torch", PyTorch's fused attention; "cpp", kernels for the CPU, built at first use, for a
            bias that is one for all windows; or "auto", the kernels where they can serve. The variable
            TAYLORIR_BACKEND says what "auto" is on the CPU.

    Returns:
        [..., H, N, d_v] of the dtype of q.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device, or a missing backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if backend == "cpp" and q.device.type != "cpu":
        raise ValueError(f"backend 'cpp' is for tensors of the CPU, got q on {q.device}; use 'auto'")
    q, k, v = check_qkv(q, k, v)
    check_bias(bias, q, k)
    labels = check_regions(regions, q, k)
    one_for_all = bias is None or bias.ndim <= 3 or bias.shape[:-3].numel() == 1
    if not one_for_all and backend == "cpp":
        raise ValueError(f"backend 'cpp' takes a bias [H, N, M] for all windows, got {list(bias.shape)}")
    if not one_for_all or not softmax_has_kernels(q, labels, backend):
        return _by_pytorch(q, k, v, bias, labels)
    if bias is not None:
        bias = bias.reshape(bias.shape[-3:]).expand(q.shape[-3], q.shape[-2], k.shape[-2])
    if labels is not None:
        queries = labels[0].reshape(-1, q.shape[-2])
        labels = labels_of(queries, queries if labels[1] is labels[0] else labels[1].reshape(-1, k.shape[-2]))
    one_batch = (_with_one_batch_axis(x) for x in (q, k, v))
    return _Softmax.apply(*one_batch, bias, labels).view(*q.shape[:-1], v.shape[-1])


def softmax_has_kernels(q: Tensor, labels: Labels = None, backend: str = "auto") -> bool:
    """Whether :func:`softmax_fused` of these queries and labels runs in kernels of our own."""
    if not on_cpu(q) or is_traced(q, labels) or is_transformed():
        return False
    if torch._C._len_torch_function_stack():  # who looks on is to see PyTorch's functions
        return False
    return backend_of(backend, q) == "cpp"


class _Softmax(torch.autograd.Function):
    """q [B, H, N, d], k [B, H, M, d], v [B, H, M, d_v], bias [H, N, M], labels [B, N] and [B, M]."""

    @staticmethod
    def forward(ctx, q, k, v, bias, labels):
        y, logs = output_memory(q, v, compute_dtype(q))
        ctx.scale = q.shape[-1] ** -0.5
        torch.ops.taylorir_cpp.softmax_forward(q, k, v, bias, *(labels or (None, None)), ctx.scale, y, logs)
        ctx.save_for_backward(q, k, v, bias, y, logs)
        ctx.labels = labels
        return y.to(q.dtype)

    @staticmethod
    def backward(ctx, dy):
        *inputs, y, logs = ctx.saved_tensors
        if to_be_differentiated(dy):

            def definition(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
                return softmax_attention(q, k, v, bias=bias, mask=_mask(ctx.labels))

            gradients = gradients_by_definition(definition, inputs, ctx.needs_input_grad[:4], dy)
            return *gradients, None
        gradients = [torch.empty_like(x) for x in inputs[:3]]
        dbias = inputs[3].new_empty(inputs[3].shape) if ctx.needs_input_grad[3] else None
        torch.ops.taylorir_cpp.softmax_backward(
            dy, *inputs, *(ctx.labels or (None, None)), ctx.scale, y, logs, *gradients, dbias
        )
        return *gradients, dbias, None


def _by_pytorch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, labels: Labels) -> Tensor:
    """By PyTorch's fused attention, for any head width.

    On a GPU its memory-efficient kernel takes head widths that are multiples of 8 only and otherwise falls
    back, silently, to writing out N x N weights. So q, k, v are padded with zeros, which changes no product,
    under the scale of d. On a CPU its kernel takes any width, but no bias that is to have a gradient, and no
    transform of ``torch.func``: those take the plain composition, which is quicker than PyTorch's.
    """
    processor, mask = on_cpu(q), _mask(labels)
    if bias is not None:
        bias = bias.to(q.dtype)
    if processor and not torch.compiler.is_compiling():
        learns = bias is not None and bias.requires_grad and torch.is_grad_enabled()
        if learns or is_transformed():
            return softmax_attention(q, k, v, bias=bias, mask=mask)
    if mask is not None:
        zero = q.new_zeros(()) if bias is None else bias
        bias = torch.where(mask, zero, -torch.inf)
    width, wanted, shape = q.shape[-1], v.shape[-1], (*q.shape[:-1], v.shape[-1])
    wide = width if processor else width + -width % 8
    q, k, v = (functional.pad(x, (0, wide - x.shape[-1])) if x.shape[-1] < wide else x for x in (q, k, v))
    if bias is not None:
        bias = bias.expand(*q.shape[:-2], -1, -1)
    q, k, v, bias = (None if x is None else _with_one_batch_axis(x) for x in (q, k, v, bias))
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=width**-0.5)
    return y[..., :wanted].reshape(shape)


def _with_one_batch_axis(x: Tensor) -> Tensor:
    """[.., H, N, width] as [B, H, N, width], which is what PyTorch's kernels are for."""
    return x[None] if x.ndim == 3 else x.flatten(0, -4)


def _mask(labels: Labels) -> Tensor | None:
    """[..., 1, N, M]: equal labels."""
    return None if labels is None else (labels[0][..., :, None] == labels[1][..., None, :])[..., None, :, :]
