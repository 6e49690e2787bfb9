"""What people call: TaylorShift attention linear in N, the choice of the cheaper form, the crossovers.

What is computed is defined in :mod:`taylorir.attention.reference`; what makes it fast (chunks, recomputation
in backward, kernels for GPUs) is in ``kernels``. Shapes as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taylorir.attention.kernels.checks import (
    check_head_dim,
    check_qkv,
    check_regions,
    check_temperature,
    compute_dtype,
)
from taylorir.attention.kernels.direct import is_small
from taylorir.attention.kernels.forms import DIRECT, Labels, backend_of, cheaper_form
from taylorir.attention.kernels.torch_operator import (
    attend,
    attend_by_definition,
    attend_for_values,
    attend_in_graph,
    attend_small,
    is_traced,
    is_transformed,
)
from taylorir.attention.reference import output_scale

BACKENDS = ("auto", "torch", "cpp", "triton")


def taylor_efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | tuple[Tensor, Tensor] | None = None,
    scale_output: bool = False,
    backend: str = "auto",
) -> Tensor:
    """TaylorShift attention in time and memory linear in N (:eq:`eq-efficient`, :eq:`eq-state`).

    The sum over keys is taken once for all queries; :func:`taylorir.attention.taylor_sums` reads like
    the equations.

    Args:
        q, k, v, temperature, scale_output: as in :func:`taylorir.attention.taylor_direct`.
        regions: integer labels [..., N], broadcast over the batch axes, one for all heads; tokens attend
            within equal labels only (:eq:`eq-regions`).
        backend: "torch", plain PyTorch; "cpp", kernels for the CPU, built at first use; "triton", kernels for
            GPUs; or "auto", the kernels of the tensors' device where they can serve. The variable
            TAYLORIR_BACKEND says what "auto" is on the CPU.

    Returns:
        [..., H, N, d_v] of the dtype of q; sums are taken in float32 at least.

    Raises:
        TypeError, ValueError: an argument of a wrong type, dtype, shape or device, or a missing backend.
    """
    return _attend(q, k, v, temperature, regions, scale_output, 0.0, backend)


def taylor_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | tuple[Tensor, Tensor] | None = None,
    scale_output: bool = False,
    crossover: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """TaylorShift attention in the cheaper form: direct for N below the crossover, efficient from it on.

    Args:
        q, k, v, temperature, regions, scale_output: as in :func:`taylor_efficient`.
        crossover: the number of tokens from which the efficient form is taken; default: the measured one of
            the C++ kernels, else :func:`crossover_flops` of d.
        backend: as in :func:`taylor_efficient`, for either form; "triton" has the efficient form only.

    Returns:
        [..., H, N, d_v] of the dtype of q.

    Raises:
        TypeError, ValueError: as in :func:`taylor_efficient`.
    """
    return _attend(q, k, v, temperature, regions, scale_output, crossover, backend)


def crossover_flops(head_dim: int) -> int:
    """N0: the smallest N at which the efficient form takes no more operations than the direct one.

    Counts of the published form, all d^2 products as features: direct N^2 (4 d + 6), efficient
    N (4 d^3 + 10 d^2 + 9 d + 4), so N0 = d^2 + d + 1 (:eq:`eq-crossover-flops`).
    """
    d = check_head_dim(head_dim)
    return d * d + d + 1


def crossover_memory(head_dim: int) -> int:
    """N1: the smallest N at which the efficient form holds no more numbers than the direct one.

    Counts of the published form: direct d N + 2 N^2, efficient d^2 (d + 1) + 2 d N + (d + 1) N + d^2 N
    (:eq:`eq-crossover-memory`).
    """
    d = check_head_dim(head_dim)
    return math.ceil((d * d + 2 * d + 1 + math.sqrt(d**4 + 12 * d**3 + 14 * d**2 + 4 * d + 1)) / 4)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: float | Tensor,
    regions: Tensor | tuple[Tensor, Tensor] | None,
    scale_output: bool,
    crossover: float | None,
    backend: str,
) -> Tensor:
    """Find what is to run, and run it."""
    if backend in ("auto", "cpp") and regions is None:
        y = attend_for_values(q, k, v, temperature, scale_output, crossover, backend)
        if y is not None:
            return y
    q, k, v = check_qkv(q, k, v)
    labels = check_regions(regions, q, k)
    chosen = _serving(backend, q, k, v, labels, crossover)
    if not torch.compiler.is_compiling() and is_transformed():
        form = cheaper_form(q, k, crossover)
        return attend_by_definition(form, q, k, v, temperature, labels, scale_output)
    if chosen == "triton":
        from taylorir.attention.kernels.triton_operator import taylor_efficient_triton

        return taylor_efficient_triton(q, k, v, temperature, regions) * output_scale(k, scale_output)
    traced = is_traced(q, labels)
    chosen = chosen if traced else backend_of(chosen, q)
    dtype = compute_dtype(q)
    if (
        chosen == "torch"
        and not traced
        and labels is None
        and is_small(q, k)
        and cheaper_form(q, k, crossover) is DIRECT
    ):
        if type(temperature) is not float:  # which costs nothing, where a tensor would cost a call
            temperature = check_temperature(temperature, q, dtype)
        if q.dtype == dtype:
            return attend_small(q, k, v, temperature, scale_output)
        return attend_small(*(x.to(dtype) for x in (q, k, v)), temperature, scale_output).to(q.dtype)
    tau = check_temperature(temperature, q, dtype)
    one_batch = [_with_one_batch_axis(x, 3) for x in (q, k, v)]
    if labels is not None:
        queries, keys = labels
        queries = _with_one_batch_axis(queries, 1)
        labels = queries, queries if labels[1] is labels[0] else _with_one_batch_axis(keys, 1)
    if traced:
        y = attend_in_graph(*one_batch, tau, labels, scale_output, crossover, chosen)
    else:
        y = attend(cheaper_form(q, k, crossover, chosen), *one_batch, tau, labels, scale_output)
    return y if q.ndim == 4 else y[0] if q.ndim == 3 else y.unflatten(0, q.shape[:-3])


def _with_one_batch_axis(x: Tensor, others: int) -> Tensor:
    """x with all axes before the ``others`` last ones as one."""
    batch = x.ndim - others
    return x if batch == 1 else x.flatten(0, batch - 1) if batch else x[None]


def _serving(backend: str, q: Tensor, k: Tensor, v: Tensor, labels: Labels, crossover: float | None) -> str:
    """ "triton" where its kernels serve, else what is left to choose: "auto", "torch" or "cpp".

    "auto" is Triton for CUDA tensors that its kernels take, at any number of tokens: they are launched twice
    forward and four times backward, where the direct form in plain PyTorch needs several times as many
    launches. A crossover that is given is kept to.

    Raises:
        ValueError: an unknown backend, or one that cannot run.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if backend == "cpp" and q.device.type != "cpu":
        raise ValueError(f"backend 'cpp' is for tensors of the CPU, got q on {q.device}; use 'auto'")
    if backend in ("torch", "cpp") or (backend == "auto" and q.device.type != "cuda"):
        return backend
    from taylorir.attention.kernels import triton_operator

    if backend == "triton" and not triton_operator.is_available():
        raise ValueError(
            f"backend 'triton' needs the package triton and a GPU (or TRITON_INTERPRET=1), got q on "
            f"{q.device}; use 'auto' or 'torch'"
        )
    if q.numel() == 0 or (crossover is not None and cheaper_form(q, k, crossover) is DIRECT):
        return "torch"
    if backend == "triton":
        return "triton"
    one_label_a_token = labels is None or labels[0] is labels[1]
    serves = triton_operator.is_available() and triton_operator.supports(q, v) and one_label_a_token
    return "triton" if serves else "torch"
