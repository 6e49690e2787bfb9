"""The fast forms in plain PyTorch, with gradients of any order, run at once or as an operator in a graph.

At once, an autograd function runs a form and saves what its backward needs. A tracer (``torch.compile``,
``torch.export``, ``make_fx``, fake tensors) sees one node instead, ``taylorir::taylor_attention``: which form
is cheaper and which tokens share a region is decided when the graph runs, so that it holds for any size and
any labels. A gradient that is to be differentiated again, and all that ``torch.func`` and forward mode do,
goes through the definitions (:mod:`taylorir.attention.reference`): the same numbers, differentiable as often
as one likes.

Shape legend: q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; labels [B, N] and [B, M]; tau [H]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from taylorir.attention.kernels import direct
from taylorir.attention.kernels.checks import without_autocast
from taylorir.attention.kernels.forms import (
    DIRECT,
    Form,
    Labels,
    backend_of,
    cheaper_form,
    measured_crossover,
)
from taylorir.attention.kernels.segments import (
    Execution,
    current_execution,
    output_memory,
)
from taylorir.attention.reference import output_scale, taylor_direct

# --- at once --------------------------------------------------------------------------------------


def attend(
    form: Form, q: Tensor, k: Tensor, v: Tensor, tau: Tensor, labels: Labels, scale_output: bool
) -> Tensor:
    """Attention by a form; tensors as in the shape legend, tau of the dtype to compute in."""
    execution = current_execution() or Execution()
    segments = form.arrange(q, k, labels, execution)
    return _Attention.apply(q, k, v, tau, form, segments, scale_output, execution)


def attend_for_values(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: float | Tensor,
    scale_output: bool,
    crossover: float | None,
    backend: str,
) -> Tensor | None:
    """Attention in one call of the C++ kernels, which look at the arguments themselves; None if it is not for
    them: q, k and v of different shapes, a derivative, a trace or a transform, a cast, another backend.

    All else takes a dozen steps in Python, which cost as much as the attention of a small window.
    """
    given = type(temperature) is not float
    if type(q) is not Tensor or type(k) is not Tensor or type(v) is not Tensor:
        return None
    if not (q.is_cpu and k.is_cpu and v.is_cpu):
        return None
    if given and not (isinstance(temperature, Tensor) and temperature.is_cpu):
        return None
    if torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad or (given and temperature.requires_grad)
    ):
        return None
    if torch.compiler.is_compiling() or is_transformed():
        return None
    if torch.is_autocast_enabled("cpu") and q.dtype != torch.get_autocast_dtype("cpu"):
        return None
    if torch._C._len_torch_dispatch_stack() or backend_of(backend, q) != "cpp":
        return None
    if crossover is None:
        crossover = measured_crossover(q.shape[-1])
    temperature, factor = (temperature, 1.0) if given else (None, temperature)
    return torch.ops.taylorir_cpp.attend.default(q, k, v, temperature, factor, scale_output, crossover)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, tau, form, segments, scale_output, execution):
        how = {"segments": segments, "output_scale": output_scale(k, scale_output), "execution": execution}
        with without_autocast(q):
            y, inverse, *states = execution.call(form.forward, (q, k, v, tau), **how)
        ctx.save_for_backward(q, k, v, tau, y, inverse, *states)
        ctx.form, ctx.scale_output, ctx.how = form, scale_output, how
        return y.to(q.dtype)

    @staticmethod
    def backward(ctx, dy):
        saved = ctx.saved_tensors  # held until the end
        needed = ctx.needs_input_grad[:4]
        if to_be_differentiated(dy):

            def definition(q: Tensor, k: Tensor, v: Tensor, tau: Tensor) -> Tensor:
                options = {"temperature": tau, "regions": ctx.form.labels(ctx.how["segments"], q, k)}
                return ctx.form.definition(q, k, v, **options, scale_output=ctx.scale_output)

            gradients = gradients_by_definition(definition, saved[:4], needed, dy)
        else:
            call = ctx.how["execution"].call
            with without_autocast(dy):
                gradients = call(ctx.form.backward, (dy, *saved), **ctx.how, needs_temperature=needed[3])
        return *gradients, None, None, None, None


def attend_small(q: Tensor, k: Tensor, v: Tensor, temperature: float | Tensor, scale_output: bool) -> Tensor:
    """Direct attention within a few small windows, q, k, v [..., H, N, width], with the fewest calls.

    q, k and v have the dtype to compute in. A temperature that is a float costs nothing; a tensor is [H].
    """
    given = isinstance(temperature, Tensor)
    tau, factor = (temperature.view(-1, 1, 1), 1.0) if given else (None, temperature)
    return _SmallAttention.apply(q, k, v, tau, factor, scale_output)


class _SmallAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, tau, factor, scale_output):
        with without_autocast(q):
            y, *rest = direct.small_forward(q, k, v, tau, factor, output_scale(k, scale_output))
        ctx.save_for_backward(q, k, v, tau, y, *rest)
        ctx.factor, ctx.scale_output = factor, scale_output
        return y.mT.view(v.shape)

    @staticmethod
    def backward(ctx, dy):
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad[:4]
        factor, scale_output = ctx.factor, ctx.scale_output
        if to_be_differentiated(dy):

            def definition(q: Tensor, k: Tensor, v: Tensor, tau: Tensor | None) -> Tensor:
                temperature = factor if tau is None else tau.flatten()
                return taylor_direct(q, k, v, temperature=temperature, scale_output=scale_output)

            gradients = gradients_by_definition(definition, saved[:4], needed, dy)
        else:
            scale = output_scale(saved[1], scale_output)
            with without_autocast(dy):
                gradients = direct.small_backward(dy, *saved, factor, scale, needed[3])
        return *gradients, None, None


# --- derivatives beyond a first gradient ----------------------------------------------------------


def is_transformed() -> bool:
    """Whether ``torch.func`` transforms this call, or forward mode follows it."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def attend_by_definition(
    form: Form, q: Tensor, k: Tensor, v: Tensor, tau: Tensor, labels: Labels, scale_output: bool
) -> Tensor:
    """Attention by ordinary operators only; tensors of any batch axes."""
    if labels is not None and not _have_values(labels):
        form = DIRECT
    return form.definition(q, k, v, temperature=tau, regions=labels, scale_output=scale_output)


def to_be_differentiated(dy: Tensor) -> bool:
    """Whether a backward pass is to be differentiated again, or transformed, as in a vectorised Hessian."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(dy)
    )


def gradients_by_definition(
    definition: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], dy: Tensor
) -> list[Tensor | None]:
    """The gradients of ``definition(*inputs)``, None for those that are not needed."""
    again = torch.is_grad_enabled()
    with torch.enable_grad(), without_autocast(dy):
        # aliases: where k depends on q, the gradient of q must not take the way through k
        own = [x.expand_as(x) if need else x for x, need in zip(inputs, needed, strict=True)]
        wanted = [x for x, need in zip(own, needed, strict=True) if need]
        found = iter(torch.autograd.grad(definition(*own), wanted, dy, create_graph=again))
    return [next(found) if need else None for need in needed]


# --- as an operator -------------------------------------------------------------------------------


def is_traced(q: Tensor, labels: Labels) -> bool:
    """Whether a graph is being made of this call, or its tensors have no values to decide by."""
    if torch.compiler.is_compiling():
        return True
    if current_execution() is not None:
        return False
    if type(q) is Tensor and labels is None and not torch._C._len_torch_dispatch_stack():
        return False  # at a glance, as a small window has no time for more
    return (
        isinstance(q, FakeTensor | FunctionalTensor)
        or get_proxy_mode() is not None
        or (labels is not None and not _have_values(labels))
    )


def _have_values(labels: Labels) -> bool:
    """Whether the labels can be looked at now."""
    return get_proxy_mode() is None and not any(
        isinstance(x, FakeTensor | FunctionalTensor)
        or x.is_meta
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        for x in labels
    )


def attend_in_graph(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor,
    labels: Labels,
    scale_output: bool,
    crossover: float | None,
    backend: str,
) -> Tensor:
    """Attention as one node of a graph, which chooses the form when it runs."""
    queries, keys = (None, None) if labels is None else labels
    crossover = None if crossover is None else float(crossover)
    rest = queries, None if keys is queries else keys, scale_output, crossover, backend
    return taylor_attention_op(q, k, v, tau, *rest)[0]


@torch.library.custom_op("taylorir::taylor_attention", mutates_args=())
def taylor_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor,
    query_labels: Tensor | None,
    key_labels: Tensor | None,
    scale_output: bool,
    crossover: float | None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """y [B, H, N, d_v]; y before it was rounded to the dtype of q, empty if it was not; 1 / b [B, H, N, 1].

    The labels of the keys are those of the queries if they are None.
    """
    form, how = _to_run(q, k, query_labels, key_labels, scale_output, crossover, backend)
    with without_autocast(q):
        y, inverse, *_ = form.forward(q, k, v, tau, **how)
    return (y, y.new_empty(0), inverse) if y.dtype == q.dtype else (y.to(q.dtype), y, inverse)


@torch.library.custom_op("taylorir::taylor_attention_backward", mutates_args=())
def taylor_attention_backward_op(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tau: Tensor,
    y: Tensor,
    inverse: Tensor,
    query_labels: Tensor | None,
    key_labels: Tensor | None,
    scale_output: bool,
    crossover: float | None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and dtau."""
    form, how = _to_run(q, k, query_labels, key_labels, scale_output, crossover, backend)
    with without_autocast(q):
        return tuple(form.backward(dy, q, k, v, tau, y, inverse, **how, needs_temperature=True))


def _to_run(
    q: Tensor,
    k: Tensor,
    query_labels: Tensor | None,
    key_labels: Tensor | None,
    scale_output: bool,
    crossover: float | None,
    backend: str,
) -> tuple[Form, dict[str, object]]:
    form, execution = cheaper_form(q, k, crossover, backend_of(backend, q)), Execution()
    segments = form.arrange(q, k, _labels(query_labels, key_labels), execution)
    return form, {
        "segments": segments,
        "output_scale": output_scale(k, scale_output),
        "execution": execution,
    }


def _labels(queries: Tensor | None, keys: Tensor | None) -> Labels:
    return None if queries is None else (queries, queries if keys is None else keys)


@taylor_attention_op.register_fake
def _(q, k, v, tau, *_):
    y, inverse = output_memory(q, v, tau.dtype)
    return (y, y.new_empty(0), inverse) if y.dtype == q.dtype else (y.to(q.dtype), y, inverse)


@taylor_attention_backward_op.register_fake
def _(dy, q, k, v, tau, *_):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(tau)


def _save_for_backward(ctx, inputs, output):
    *tensors, query_labels, key_labels, ctx.scale_output, ctx.crossover, ctx.backend = inputs
    rounded, exact, inverse = output
    y = rounded if rounded.dtype == inverse.dtype else exact
    ctx.save_for_backward(*tensors, y, inverse, query_labels, key_labels)
    ctx.mark_non_differentiable(exact, inverse)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, *_):
    if dy is None:
        return (None,) * 9
    q, k, v, tau, y, inverse, query_labels, key_labels = ctx.saved_tensors
    rest = query_labels, key_labels, ctx.scale_output, ctx.crossover, ctx.backend
    if not to_be_differentiated(dy):
        gradients = taylor_attention_backward_op(dy, q, k, v, tau, y, inverse, *rest)
        return *gradients, *(None,) * 5
    form, labels = cheaper_form(q, k, ctx.crossover), _labels(query_labels, key_labels)

    def definition(q: Tensor, k: Tensor, v: Tensor, tau: Tensor) -> Tensor:
        return attend_by_definition(form, q, k, v, tau, labels, ctx.scale_output)

    gradients = gradients_by_definition(definition, (q, k, v, tau), ctx.needs_input_grad[:4], dy)
    return *gradients, *(None,) * 5


taylor_attention_op.register_autograd(_backward, setup_context=_save_for_backward)


def _one_by_one(operator: Callable) -> Callable:
    """A rule for ``vmap``: call the operator for each, and stack what it returns."""

    def rule(info, in_dims, *arguments):
        calls = [
            operator(
                *(x if dim is None else x.select(dim, i) for x, dim in zip(arguments, in_dims, strict=True))
            )
            for i in range(info.batch_size)
        ]
        results = tuple(torch.stack(parts) for parts in zip(*calls, strict=True))
        return results, (0,) * len(results)

    return rule


for _operator in (taylor_attention_op, taylor_attention_backward_op):
    _operator.register_vmap(_one_by_one(_operator))
