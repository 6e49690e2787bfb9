"""What every form asks before it computes: are the arguments right, and in which precision.

An argument that is wrong is named in one clear line.

Shapes: q [..., H, N, d]; k [..., H, M, d]; v [..., H, M, d_v]; temperature [H]; mask to [..., H, N, M];
regions to [..., N], or a pair to [..., N] and [..., M]. N queries and M keys are often the same tokens.
"""

from __future__ import annotations

import contextlib
import numbers

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check q, k and v against each other; under autocast cast them to its dtype, as SDPA does.

    Returns:
        q, k, v of one floating dtype.

    Raises:
        TypeError: not tensors, not floating, or of different dtypes.
        ValueError: shapes that do not fit, or different devices.
    """
    alike = _alike(q, k, v)
    if not alike:
        _check_unlike(q, k, v)
    if in_autocast(q):
        q, k, v = (x.to(autocast_dtype(x)) for x in (q, k, v))
    for name, x in () if alike else (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise TypeError(f"{name} must have the dtype of q, expected {q.dtype}, got {x.dtype}")
    return q, k, v


def _alike(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether nothing is wrong with q, k and v at first sight; a small window has no time for more."""
    return (
        isinstance(q, Tensor)
        and isinstance(k, Tensor)
        and isinstance(v, Tensor)
        and q.shape == k.shape == v.shape
        and q.dtype == k.dtype == v.dtype
        and q.device == k.device == v.device
        and q.is_floating_point()
        and q.ndim > 2
        and q.numel() > 0
    )


def _check_unlike(q: Tensor, k: Tensor, v: Tensor) -> None:
    """All checks but that of the dtypes against each other."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor [..., H, N, d], got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {x.dtype} of shape {list(x.shape)}")
        if x.ndim < 3:
            raise ValueError(f"{name} must be [..., H, N, d] with at least 3 axes, got shape {list(x.shape)}")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device}, expected {q.device}, the device of q")
    if min(q.shape[-3:]) < 1 or min(v.shape[-2:]) < 1:
        raise ValueError(
            f"q must have H >= 1 heads of N >= 1 tokens of d >= 1, got q {list(q.shape)}, v {list(v.shape)}"
        )
    if (*k.shape[:-2], k.shape[-1]) != (*q.shape[:-2], q.shape[-1]):
        expected = [*q.shape[:-2], "M", q.shape[-1]]
        raise ValueError(f"k must have all axes of q but N, expected {expected}, got {list(k.shape)}")
    if v.shape[:-1] != k.shape[:-1]:
        expected = [*k.shape[:-1], "d_v"]
        raise ValueError(f"v must have the tokens of k, expected {expected}, got {list(v.shape)}")


def check_temperature(temperature: float | Tensor, q: Tensor, dtype: torch.dtype) -> Tensor:
    """The temperature as a tensor [H] of ``dtype`` on the device of q.

    Raises:
        TypeError: neither a number nor a floating tensor.
        ValueError: a tensor of a shape other than [] or [H], or on another device.
    """
    heads = q.shape[-3]
    if isinstance(temperature, Tensor):
        if not temperature.is_floating_point():
            raise TypeError(f"temperature must be floating point, got {temperature.dtype}")
        if temperature.shape not in ((), (heads,)):
            raise ValueError(
                f"temperature must be a float or a tensor of shape [H] = [{heads}], "
                f"got shape {list(temperature.shape)}"
            )
        if temperature.device != q.device and temperature.ndim:
            raise ValueError(f"temperature is on {temperature.device}, expected {q.device}, the device of q")
        return temperature.to(device=q.device, dtype=dtype).expand(heads)
    if type(temperature) is not float and (
        not isinstance(temperature, numbers.Real) or isinstance(temperature, bool)
    ):
        raise TypeError(f"temperature must be a float or a tensor [H], got {type(temperature).__name__}")
    return torch.full((heads,), float(temperature), dtype=dtype, device=q.device)


def check_order(order: int) -> None:
    """Check the last power of the Taylor series.

    Raises:
        ValueError: odd, or none of 2, 4 and 6.
    """
    if order in (1, 3, 5):
        raise ValueError(
            f"order must be even (2, 4 or 6), got {order}: a Taylor polynomial of odd order turns negative "
            "for negative scores, so its values are no weights"
        )
    if order not in (2, 4, 6):
        raise ValueError(f"order must be 2, 4 or 6, got {order!r}")


def check_head_dim(head_dim: int) -> int:
    """The width of a head.

    Raises:
        ValueError: no whole number of at least 1.
    """
    if not isinstance(head_dim, int) or head_dim < 1:
        raise ValueError(f"head_dim must be an integer of at least 1, got {head_dim!r}")
    return head_dim


def check_mask(mask: Tensor | None, q: Tensor, k: Tensor) -> None:
    """Check that mask is boolean and broadcasts to [..., H, N, M].

    Raises:
        TypeError: not a boolean tensor.
        ValueError: a shape that does not broadcast, or another device.
    """
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a boolean tensor (True = may attend), got {got}")
    _check_broadcast("mask", mask, (*q.shape[:-1], k.shape[-2]), q)


def check_bias(bias: Tensor | None, q: Tensor, k: Tensor) -> None:
    """Check that bias is floating point and broadcasts to [..., H, N, M].

    Raises:
        TypeError: not a floating tensor.
        ValueError: a shape that does not broadcast, or another device.
    """
    if bias is None:
        return
    if not isinstance(bias, Tensor) or not bias.is_floating_point():
        got = bias.dtype if isinstance(bias, Tensor) else type(bias).__name__
        raise TypeError(f"bias must be a floating point tensor, got {got}")
    _check_broadcast("bias", bias, (*q.shape[:-1], k.shape[-2]), q)


def check_regions(
    regions: Tensor | tuple[Tensor, Tensor] | None, q: Tensor, k: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The labels of the queries, expanded to [..., N], and of the keys, [..., M].

    One tensor labels tokens that are both, and is returned twice, the same object.

    Raises:
        TypeError: neither an integer tensor nor a pair of them.
        ValueError: a shape that does not broadcast, another device, or one tensor for N queries and M keys.
    """
    if regions is None:
        return None
    if isinstance(regions, tuple | list) and len(regions) == 2:
        return _check_labels("regions[0]", regions[0], q), _check_labels("regions[1]", regions[1], k)
    labels = _check_labels("regions", regions, q)
    if k.shape[-2] != q.shape[-2]:
        raise ValueError(
            f"regions must be a pair, labels of the {q.shape[-2]} queries and of the {k.shape[-2]} keys, "
            f"got one tensor of shape {list(regions.shape)}"
        )
    return labels, labels


def _check_labels(name: str, labels: Tensor, x: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name} must be an integer tensor of labels [..., N], got {got}")
    shape = (*x.shape[:-3], x.shape[-2])
    if labels.ndim < 1 or labels.shape[-1] != x.shape[-2]:
        raise ValueError(f"{name} must be labels [..., N] = {list(shape)}, got shape {list(labels.shape)}")
    _check_broadcast(name, labels, shape, x)
    return labels.expand(shape)


def _check_broadcast(name: str, x: Tensor, shape: tuple[int, ...], q: Tensor) -> None:
    fits = x.ndim <= len(shape) and all(
        size in (1, wanted) for size, wanted in zip(reversed(x.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must broadcast to {list(shape)}, got shape {list(x.shape)}")
    if x.device != q.device:
        raise ValueError(f"{name} is on {x.device}, expected {q.device}, the device of q")


def compute_dtype(x: Tensor) -> torch.dtype:
    """float32 for float16 and bfloat16, else the dtype of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def in_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of x."""
    kind = x.device.type
    if kind not in ("cpu", "cuda") and not torch.amp.is_autocast_available(kind):
        return False
    return torch.is_autocast_enabled(kind)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype that autocast casts x to where it is on; float64 stays."""
    return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(x.device.type)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Products inside keep the dtype of their factors; autocast would round them to 16 bits."""
    return torch.autocast(x.device.type, enabled=False) if in_autocast(x) else contextlib.nullcontext()
