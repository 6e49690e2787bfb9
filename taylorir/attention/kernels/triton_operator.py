"""The efficient form on a GPU: :mod:`triton_kernels` as PyTorch operators with gradients.

``taylorir::taylor_forward`` and ``taylorir::taylor_backward`` are opaque to ``torch.compile``: one node each,
whose fake versions know the shapes. Saved for backward: q, k, v, den [B, H, N] and the moments.

In eager mode an autograd function stands around each: operators of ``torch.library`` refuse ``torch.func``,
and their forward-mode derivatives are zero. Those, and second derivatives, are taken through the plain form.

Shape legend
    B windows of all images, H heads, N tokens of q and M of k, d width of q and k, d_v width of v and y
    D, C d and d_v padded to 16, 32 or 64 inside the kernels; ``high`` and ``low`` are the moments
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from taylorir.attention.kernels.checks import check_qkv, check_regions, check_temperature, without_autocast
from taylorir.attention.kernels.triton_launch import KernelCalls, family_of, interpreted, padded

MAX_HEAD_DIM = 64
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_available() -> bool:
    """Whether the kernels can run: Triton is installed, and there is a CUDA device or Triton interprets."""
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.is_available() or interpreted()


def supports(q: Tensor, v: Tensor | None = None) -> bool:
    """Whether the kernels take tensors of this dtype and width, on this device."""
    widths = [x.shape[-1] for x in (q, v) if x is not None]
    return q.dtype in _DTYPES and max(widths) <= MAX_HEAD_DIM and family_of(q.device) is not None


def taylor_efficient_triton(
    q: Tensor, k: Tensor, v: Tensor, temperature: float | Tensor = 1.0, regions: Tensor | None = None
) -> Tensor:
    """TaylorShift attention, efficient form, in fused kernels (:eq:`eq-efficient`).

    Args:
        q, k: [..., H, N, d] in bfloat16, float16 or float32, d at most 64; normalised inside. Any strides.
        v: [..., H, N, d_v], d_v at most 64.
        temperature: a float or a tensor [H].
        regions: integer labels, broadcast to [..., N]; tokens attend within equal labels only.

    Returns:
        [..., H, N, d_v] in the dtype of q, not scaled by sqrt(N / d). Sums are taken in float32.

    Raises:
        TypeError: a dtype other than the three.
        ValueError: d or d_v above 64, a device that the kernels do not run on, or shapes that do not fit.
    """
    q, k, v = check_qkv(q, k, v)
    labels = check_regions(regions, q, k)
    if labels is not None and labels[0] is not labels[1]:
        raise ValueError("regions must be one tensor for the triton backend, got a pair")
    regions = None if labels is None else labels[0]
    if q.dtype not in _DTYPES:
        raise TypeError(f"q must be bfloat16, float16 or float32 for the triton backend, got {q.dtype}")
    for name, x in (("q", q), ("v", v)):
        if x.shape[-1] > MAX_HEAD_DIM:
            raise ValueError(
                f"{name} must be at most {MAX_HEAD_DIM} wide for the triton backend, got {list(x.shape)}"
            )
    if regions is not None and k.shape[-2] != q.shape[-2]:
        raise ValueError(
            f"regions need as many keys as queries for the triton backend, got q {list(q.shape)} and "
            f"k {list(k.shape)}; use the backend 'torch'"
        )
    if family_of(q.device) is None:
        raise ValueError(
            f"q must be on a GPU that the triton backend has tile sizes for, got {q.device}; use the backend "
            "'torch' (or set TRITON_INTERPRET=1 before Python starts, to run the kernels slowly on the CPU)"
        )
    tau = check_temperature(temperature, q, torch.float32).contiguous()
    batch = q.shape[:-3]
    q, k, v = (x.reshape(batch.numel(), *x.shape[-3:]) for x in (q, k, v))
    compiling = torch.compiler.is_compiling()
    attend = taylor_forward if compiling else _Forward.apply
    y = attend(q, k, v, tau, regions, not compiling)[0]
    return y.reshape(*batch, *y.shape[-3:])


@torch.library.custom_op("taylorir::taylor_forward", mutates_args=())
def taylor_forward(
    q: Tensor, k: Tensor, v: Tensor, tau: Tensor, regions: Tensor | None, versioned: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y [B, H, N, d_v], den [B, H, N] and the moments (K1), (K2); q, k, v [B, H, N, ...], tau [H].

    ``versioned``: see :func:`triton_launch.region_tables`.
    """
    q, k, v = map(_rows_dense, (q, k, v))
    y, den = _output_like(q, v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)
    calls = KernelCalls(q, k, v, regions, versioned)
    with calls.device():
        high, low = calls.moments(k, v, den, den, tau, query=False)
        calls.readout(q, tau, high, low, y, den, query=True)
    return y, den, high, low


@torch.library.custom_op("taylorir::taylor_backward", mutates_args=())
def taylor_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor,
    regions: Tensor | None,
    versioned: bool,
    den: Tensor,
    high: Tensor,
    low: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and dtau [H] (K3) to (K7)."""
    dy, q, k, v = map(_rows_dense, (dy, q, k, v))
    dq, dk, dv = (_output_like(x, x.shape[-1]) for x in (q, k, v))
    h = torch.empty_like(den)
    calls = KernelCalls(q, k, v, regions, versioned)
    with calls.device():
        dtau = calls.pullback(q, dy, den, h, tau, high, low, dq, query=True)
        dual_high, dual_low = calls.moments(q, dy, den, h, tau, query=True)
        calls.readout(k, tau, dual_high, dual_low, dv, den, query=False)
        calls.pullback(k, v, den, h, tau, dual_high, dual_low, dk, query=False)
    return dq, dk, dv, dtau


@taylor_forward.register_fake
def _(q, k, v, tau, regions, versioned):
    y = _output_like(_rows_dense(q), v.shape[-1])
    den = q.new_empty(q.shape[:-1], dtype=torch.float32)
    states = q.shape[0] if regions is None else torch.library.get_ctx().new_dynamic_size()
    D, C = padded(q.shape[-1]), padded(v.shape[-1])
    high = q.new_empty((states, q.shape[1], D * D * C), dtype=torch.float32)
    low = q.new_empty((states, q.shape[1], D * (C + D) + D + C), dtype=torch.float32)
    return y, den, high, low


@taylor_backward.register_fake
def _(dy, q, k, v, tau, regions, versioned, den, high, low):
    dq, dk, dv = (_output_like(_rows_dense(x), x.shape[-1]) for x in (q, k, v))
    return dq, dk, dv, torch.empty_like(tau)


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.versioned = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.save_for_forward(*tensors)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, *_):
    if dy is None:
        return (None,) * 6
    *inputs, den, high, low = ctx.saved_tensors
    pull = taylor_backward if torch.compiler.is_compiling() else _Backward.apply
    return *pull(dy, *inputs, ctx.versioned, den, high, low), None, None


def _save_for_second_order(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:6])
    ctx.save_for_forward(*inputs[:6])


def _second_order(ctx, *gradients):
    *inputs, regions = ctx.saved_tensors
    with torch.enable_grad():
        return *torch.func.vjp(_plain_pull(regions), *inputs)[1](gradients), *(None,) * 5


taylor_forward.register_autograd(_backward, setup_context=_save_for_backward)
taylor_backward.register_autograd(_second_order, setup_context=_save_for_second_order)


def _plain(regions: Tensor | None):
    """The operator in plain PyTorch: a function of q, k, v and tau."""
    from taylorir.attention.reference import taylor_direct, taylor_sums

    def attend(q, k, v, tau):
        with without_autocast(q):  # which has cast what it casts before
            if regions is None:
                return taylor_sums(q, k, v, temperature=tau)
            mask = regions[..., None, :, None] == regions[..., None, None, :]
            return taylor_direct(q, k, v, temperature=tau, mask=mask)

    return attend


def _plain_pull(regions: Tensor | None):
    """Its gradients: a function of dy, q, k, v and tau."""
    return lambda dy, *inputs: torch.func.vjp(_plain(regions), *inputs)[1](dy)


def _push(function, inputs: list[Tensor], tangents: tuple[Tensor | None, ...]):
    """The tangents of a function's results: pulling back is linear in what is pulled, this its transpose."""
    tangents = [torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True)]
    outputs, pull = torch.func.vjp(function, *inputs)
    _, push = torch.func.vjp(pull, outputs)
    return push(tuple(tangents))[0]


def _vmap_forward(info, in_dims, *arguments):
    *inputs, regions, versioned = arguments
    *inputs, tau = _beside_heads(info, in_dims[:4], inputs, (1, 1, 1, 0))
    _check_one_set_of_regions(in_dims[4])
    outputs = _Forward.apply(*inputs, tau.contiguous(), regions, versioned)
    return tuple(x.unflatten(1, (info.batch_size, -1)) for x in outputs), (1, 1, 1, 1)


def _vmap_backward(info, in_dims, *arguments):
    *inputs, regions, versioned, den, high, low = arguments
    *inputs, tau = _beside_heads(info, in_dims[:5], inputs, (1, 1, 1, 1, 0))
    _check_one_set_of_regions(in_dims[5])
    saved = (x.contiguous() for x in _beside_heads(info, in_dims[7:], (den, high, low), (1, 1, 1)))
    *gradients, dtau = _Backward.apply(*inputs, tau.contiguous(), regions, versioned, *saved)
    split = (info.batch_size, -1)
    return (*(x.unflatten(1, split) for x in gradients), dtau.unflatten(0, split)), (1, 1, 1, 0)


def _beside_heads(info, dims, tensors, head_axes) -> list[Tensor]:
    """The axis of vmap merged with that of the heads, each of which has a temperature of its own."""
    merged = []
    for x, dim, axis in zip(tensors, dims, head_axes, strict=True):
        x = (
            x.unsqueeze(axis).expand(*x.shape[:axis], info.batch_size, *x.shape[axis:])
            if dim is None
            else x.movedim(dim, axis)
        )
        merged.append(x.flatten(axis, axis + 1))
    return merged


def _check_one_set_of_regions(dim: int | None) -> None:
    if dim is not None:
        raise NotImplementedError(
            "vmap over regions is not supported by the triton backend: give q, k, v and regions a batch axis "
            "instead, or use the backend 'torch'"
        )


taylor_forward.register_vmap(_vmap_forward)
taylor_backward.register_vmap(_vmap_backward)


class _Forward(torch.autograd.Function):
    """``taylor_forward``, to be differentiated in eager mode."""

    forward = staticmethod(lambda *inputs: taylor_forward(*inputs))
    setup_context = staticmethod(_save_for_backward)
    backward = staticmethod(_backward)
    vmap = staticmethod(_vmap_forward)

    @staticmethod
    def jvp(ctx, dq, dk, dv, dtau, *_):
        *inputs, regions = ctx.saved_tensors
        return _push(_plain(regions), inputs, (dq, dk, dv, dtau)), None, None, None


class _Backward(torch.autograd.Function):
    """``taylor_backward``, likewise."""

    forward = staticmethod(lambda *inputs: taylor_backward(*inputs))
    setup_context = staticmethod(_save_for_second_order)
    backward = staticmethod(_second_order)
    vmap = staticmethod(_vmap_backward)

    @staticmethod
    def jvp(ctx, *tangents):
        *inputs, regions = ctx.saved_tensors
        return _push(_plain_pull(regions), inputs, tangents[:5])


def _rows_dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _output_like(x: Tensor, width: int) -> Tensor:
    """Empty [B, H, N, width], heads of a token side by side where x has them so (a view of projections)."""
    B, H, N, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty((B, N, H, width)).transpose(1, 2)
    return x.new_empty((B, H, N, width))
