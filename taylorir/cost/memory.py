"""Peak memory of a forward pass or a training step of any variant at any size, exact, without a GPU.

The network runs on tensors without contents (shapes and storages, no arithmetic), and every allocation and
release is recorded (:mod:`taylorir.cost.allocations`). The peak is that of the bytes of tensors; what an
allocator rounds up and what a kernel takes for itself comes on top.

The reference is the whole network under ``FakeTensorMode``. The table takes two short cuts, which a test
compares with it, byte for byte. A network is R equal groups of n equal blocks, of which all but the first and
the last repeat the same events: it is enough to trace 2 groups of 4 blocks and to repeat those of the inner
ones. And tensors on the meta device make the same storages, at a third of the time.

Which kernels: see ``cuda_attention_kernels``. TaylorShift efficient is the plain PyTorch form; the Triton
kernels hold less.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import l1_loss

from taylorir.attention.kernels.segments import current_execution, executing
from taylorir.cost.allocations import AllocationTrace, Events, cuda_attention_kernels, record
from taylorir.cost.flex_attention import as_with_flex_attention
from taylorir.cost.tracing import KnownRegions, RecordedOnce, WholeWindows, run_once
from taylorir.networks import VARIANTS, as_in_original, build_model, kept_apart

NETWORK_METHODS: dict[str, dict[str, object]] = {
    "softmax_naive": {"attention": "softmax", "softmax_backend": "naive", "position": "bias"},
    "softmax_fused": {"attention": "softmax", "softmax_backend": "fused", "position": "bias"},
    "softmax_flash": {"attention": "softmax", "softmax_backend": "flash", "position": "none"},
    "softmax_rib": {"attention": "softmax", "softmax_backend": "flash", "position": "rib"},
    "taylor_direct": {"attention": "taylor", "attention_form": "direct", "position": "none"},
    "taylor_published": {"attention": "taylor", "attention_form": "published", "position": "none"},
    "taylor_efficient": {"attention": "taylor", "attention_form": "efficient", "position": "none"},
}
"""What to build, by the name that tables show. "softmax_naive" is the authors' code
(:mod:`taylorir.networks.original`)."""

COUNTED_ONLY = {"softmax_flex": "softmax_flash"}
"""What has a memory by its definition but is not run (:mod:`taylorir.cost.flex_attention`), by name, and what
it is counted on."""

CATEGORIES = ("parameters", "gradients", "optimiser", "buffers", "data", "saved", "transient")
"""Parts of the peak. "data": LR input and HR target. "saved": activations kept for the backward pass.
"transient": all else, with what checkpointing recomputes."""

MODES = ("train", "infer")
_GROUPS, _BLOCKS = 2, 4  # what is traced


@dataclass(frozen=True)
class MemoryPoint:
    """One entry of the memory table.

    Attributes:
        model: "S" or "M".
        method: a key of ``NETWORK_METHODS`` or of ``COUNTED_ONLY``.
        checkpoint: recompute every block in the backward pass (training only).
        window_size: side of a window.
        lr_size: side of the LR image.
        upscale: 2, 3 or 4.
        mode: "train" (a step: forward, L1 loss, backward, Adam) or "infer".
        batch: images.

    Windows are shifted unless one covers the whole image, as in the original. A network to be trained is
    built for its LR size, so that the original's masks are buffers; one to infer with was built for another
    size.
    """

    model: str = "M"
    method: str = "taylor_efficient"
    checkpoint: bool = False
    window_size: int = 48
    lr_size: int = 48
    upscale: int = 2
    mode: str = "train"
    batch: int = 1

    def __post_init__(self) -> None:
        for name, choices in (
            ("model", ("S", "M")),
            ("method", (*NETWORK_METHODS, *COUNTED_ONLY)),
            ("mode", MODES),
            ("upscale", (2, 3, 4)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(map(str, choices))}"
                )
        for name in ("window_size", "lr_size", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a positive whole number")


@dataclass(frozen=True)
class MemoryPeak:
    """Bytes at the moment of the peak.

    Attributes:
        total: their sum.
        phase: "forward", "backward" or "optimiser".
        parts: bytes by category, keys ``CATEGORIES``.
    """

    total: int
    phase: str
    parts: dict[str, int]


def build(point: MemoryPoint, **overrides: object) -> nn.Module:
    """The network of a point, with fresh weights; ``overrides`` are fields of ``ModelConfig``."""
    model = build_model(
        _variant(point),
        **NETWORK_METHODS[COUNTED_ONLY.get(point.method, point.method)],
        window_size=point.window_size,
        shift=point.lr_size > point.window_size,
        use_checkpoint=point.checkpoint,
        **overrides,
    )
    if point.method in COUNTED_ONLY:
        return as_with_flex_attention(model)
    if point.method != "softmax_naive":
        return model
    return as_in_original(model, point.lr_size if point.mode == "train" else point.window_size)


def account(point: MemoryPoint, *, whole: bool = False, cuda_kernels: bool = True) -> MemoryPeak:
    """Peak memory of a point, from traces on fake tensors.

    Args:
        point: what to account for.
        whole: the reference: trace the network as it is on fake tensors, nothing shared, nothing repeated.
        cuda_kernels: fused attention allocates as PyTorch's CUDA kernels do, else as on the CPU.
    """
    depths = VARIANTS[_variant(point)].depths
    if whole:
        trace = _trace(point, depths, cuda_kernels, fake=True)
    else:
        how = {"cuda_kernels": cuda_kernels, "fake": not cuda_kernels}  # the CPU's choice needs its device
        body = _shared_trace(dataclasses.replace(point, upscale=2), (_BLOCKS,) * _GROUPS, **how)
        tail = dataclasses.replace(point, method="softmax_flash", checkpoint=False)
        trace = body.with_tail(_shared_trace(tail, (1,), **how)).repeated(len(depths), depths[0])
    same_parameters = dataclasses.replace(point, checkpoint=False, lr_size=1, mode="infer", batch=1)
    same_buffers = same_parameters
    if point.method == "softmax_naive" and point.mode == "train":  # masks for its size
        same_buffers = dataclasses.replace(point, checkpoint=False, upscale=2, batch=1)
    return trace.peak(_static_bytes(same_parameters)[0], _static_bytes(same_buffers)[1])


@functools.lru_cache(maxsize=256)
def _static_bytes(point: MemoryPoint) -> tuple[int, int]:
    """Bytes of the parameters and of the buffers."""
    with torch.device("meta"):
        model = build(point)
    return bytes_of(model.parameters()), bytes_of(model.buffers())


def _trace(point: MemoryPoint, depths: tuple[int, ...], cuda_kernels: bool, fake: bool) -> StepTrace:
    """A step of a network without contents: on fake tensors of the CPU, or on the meta device."""
    _use_first(point.method, point.checkpoint, point.mode, cuda_kernels, fake)
    return _traced(point, depths, cuda_kernels, fake)


@functools.cache
def _use_first(method: str, checkpoint: bool, mode: str, cuda_kernels: bool, fake: bool) -> None:
    """Trace a tiny network for nothing: what PyTorch imports on first use may hold on to tensors."""
    _traced(MemoryPoint("S", method, checkpoint, 4, 6, 2, mode), (2,), cuda_kernels, fake)


def _traced(point: MemoryPoint, depths: tuple[int, ...], cuda_kernels: bool, fake: bool) -> StepTrace:
    with torch.device("meta"):
        model = build(point, depths=depths)
    kernels = cuda_attention_kernels() if cuda_kernels else nullcontext()
    padded = -(-point.lr_size // point.window_size) * point.window_size
    with kernels, kept_apart(), executing(KnownRegions(point.batch, padded, point.window_size)):
        if not fake:
            return trace_step(model, point, quick=True)
        with FakeTensorMode():
            return trace_step(_on_cpu(model), point, quick=True)


_shared_trace = functools.lru_cache(maxsize=64)(_trace)


def _variant(point: MemoryPoint) -> str:
    return f"swinir_{point.model.lower()}_x{point.upscale}"


def _on_cpu(model: nn.Module) -> nn.Module:
    """Replace the tensors of a model on the meta device by empty ones on the CPU: fake ones, within that
    mode."""
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype)))
        for name, tensor in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
    return model


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class StepTrace:
    """The events of one step and what they belong to.

    Attributes:
        events: allocations and releases, from an idle network with its inputs (not counted) to the end of
            backward.
        category: index into ``CATEGORIES`` of each event.
        data: bytes of the inputs.
        train: whether there is a backward pass.
    """

    events: Events
    category: np.ndarray
    data: int
    train: bool

    def with_tail(self, other: StepTrace) -> StepTrace:
        """This trace with the upsampler and the loss of another, whose body may differ."""
        mine, its = self._tail(), other._tail()
        moved = (its.stop - its.start) - (mine.stop - mine.start)
        marks = {n: at + (moved if at >= mine.stop else 0) for n, at in self.events.marks.items()}
        marks["backward"] = mine.start + other.events.marks["backward"] - its.start
        new_owner = other.events.owner[its] + self.events.owner.max(initial=0) + 1

        def splice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.concatenate([a[: mine.start], b, a[mine.stop :]])

        events = Events(
            splice(self.events.delta, other.events.delta[its]), splice(self.events.owner, new_owner), marks
        )
        return StepTrace(events, splice(self.category, other.category[its]), other.data, self.train)

    def _tail(self) -> slice:
        marks = self.events.marks
        return slice(marks["forward tail"], marks["backward tail"] if self.train else len(self.events.delta))

    def repeated(self, groups: int, blocks: int) -> StepTrace:
        """The trace of ``groups`` x ``blocks`` blocks, from this one of 2 x 4: the inner ones repeat."""
        order = [(group, block) for group in range(groups) for block in range(blocks)]
        traced = [(group, block) for group in range(_GROUPS) for block in range(_BLOCKS)]
        marks = self.events.marks
        backward = marks["backward"]
        starts = [marks[f"forward {where}"] for where in traced] + [backward]
        forward = {where: np.arange(starts[i], starts[i + 1]) for i, where in enumerate(traced)}
        pick = [np.arange(starts[0]), *(forward[_alike(where, groups, blocks)] for where in order)]
        moved = {"backward": sum(map(len, pick))}
        if self.train:
            stops = [backward, *(marks[f"backward {where}"] for where in reversed(traced))]
            back = {where: np.arange(stops[i], stops[i + 1]) for i, where in enumerate(reversed(traced))}
            pick += [back[_alike(where, groups, blocks)] for where in reversed(order)]
            pick.append(np.arange(stops[-1], len(self.events.delta)))
        index = np.concatenate(pick)
        events = Events(self.events.delta[index], self.events.owner[index], moved)
        return StepTrace(events, self.category[index], self.data, self.train)

    def peak(self, parameters: int, buffers: int) -> MemoryPeak:
        """The peak, for a network of which the bytes of parameters and buffers are given."""
        kinds = np.arange(len(CATEGORIES))[:, None]
        curves = np.cumsum((self.category == kinds) * self.events.delta, axis=1)
        base = dict.fromkeys(CATEGORIES, 0)
        base |= {"parameters": parameters, "buffers": buffers, "data": self.data}
        base["optimiser"] = 2 * parameters if self.train else 0
        at = int(curves.sum(0).argmax())
        parts = {name: base[name] + int(curves[i, at]) for i, name in enumerate(CATEGORIES)}
        phase = "backward" if at >= self.events.marks["backward"] else "forward"
        if self.train:
            end = {name: base[name] + int(curves[i, -1]) for i, name in enumerate(CATEGORIES)}
            end["transient"] += round(_optimiser_scratch() * parameters)
            if sum(end.values()) > sum(parts.values()):
                parts, phase = end, "optimiser"
        return MemoryPeak(sum(parts.values()), phase, parts)


def _alike(where: tuple[int, int], groups: int, blocks: int) -> tuple[int, int]:
    """The traced block whose events are those of a block of the whole network."""
    group, block = where
    if block == blocks - 1:
        return (1 if group == groups - 1 else 0, _BLOCKS - 1)
    if block < 2 and group == 0:
        return where
    return (1, block if block == 0 else 1 + (block - 1) % 2)


def trace_step(model: nn.Module, point: MemoryPoint, *, quick: bool = False) -> StepTrace:
    """Record a step of a model, on the device that it is on, or on fake tensors within ``FakeTensorMode``.

    Args:
        quick: for tensors without contents: do not run the fast forms' loops to their end, nor again for
            shapes that were seen; see :mod:`taylorir.cost.tracing`.
    """
    device = model.mean.device
    lr = torch.rand(point.batch, 3, point.lr_size, point.lr_size, device=device)
    hr_size = point.upscale * point.lr_size
    hr = torch.rand(point.batch, 3, hr_size, hr_size, device=device) if point.mode == "train" else None
    return record_step(model, lr, hr, quick=quick, marks=_marked)


def record_step(
    model: nn.Module,
    lr: Tensor,
    hr: Tensor | None,
    *,
    quick: bool,
    marks: Callable[[nn.Module, AllocationTrace], AbstractContextManager] = lambda *_: nullcontext(),
) -> StepTrace:
    """Record a step of any model: training towards ``hr``, or inference where there is none.

    Args:
        quick: as for :func:`trace_step`.
        marks: a context in which the model marks places in the trace.
    """
    inputs = [lr] if hr is None else [lr, hr]
    run = run_once if lr.device.type == "meta" else None
    model.train(hr is not None)
    with (
        ExitStack() as stack,
        record([*inputs, *model.parameters(), *model.buffers()], run) as trace,
        marks(model, trace),
    ):
        if quick:
            stack.enter_context(executing(RecordedOnce(trace, current_execution() or WholeWindows())))
        if hr is not None:
            loss = l1_loss(model(lr), hr)
            trace.mark("backward")
            loss.backward()
        else:
            with torch.no_grad():
                model(lr)
            trace.mark("backward")
        gradients = {trace.number_of(p.grad) for p in model.parameters() if p.grad is not None}
        events = trace.events()
    category = np.full(len(events.delta), CATEGORIES.index("transient"))
    if hr is not None:
        saved = np.isin(events.owner, list(events.alive_at(events.marks["backward"])))
        category[saved] = CATEGORIES.index("saved")
        category[np.isin(events.owner, list(gradients))] = CATEGORIES.index("gradients")
    return StepTrace(events, category, bytes_of(inputs), hr is not None)


@contextmanager
def _marked(model: nn.Module, trace: AllocationTrace) -> Iterator[None]:
    """Mark where each block, and the upsampler, begins, and where the gradient of its input is complete."""

    def hook(where: object) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def mark(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if trace.has_mark(f"forward {where}"):  # the block is being recomputed
                return
            trace.mark(f"forward {where}")
            if inputs[0].requires_grad:
                inputs[0].register_hook(lambda _: trace.mark(f"backward {where}"))

        return mark

    tail = model.conv_before_upsample if hasattr(model, "conv_before_upsample") else model.upsample
    handles = [tail.register_forward_pre_hook(hook("tail"))]
    for i, layer in enumerate(model.layers):
        for j, block in enumerate(layer.residual_group.blocks):
            handles.append(block.register_forward_pre_hook(hook((i, j))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@functools.cache
def _optimiser_scratch() -> float:
    """What one step of Adam (multi-tensor, as on CUDA) allocates at most, over the bytes of the parameters.

    Measured on two small real tensors: every operator of it works on the list of all parameters.
    """
    parameters = [nn.Parameter(torch.zeros(64, 64)), nn.Parameter(torch.zeros(64))]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser = torch.optim.Adam(parameters, foreach=True)
    optimiser.step()  # makes the state
    state = [tensor for entry in optimiser.state.values() for tensor in entry.values()]
    with record([*parameters, *(p.grad for p in parameters), *state]) as trace:
        optimiser.step()
        curve = trace.events().delta.cumsum()
    return float(curve.max(initial=0)) / bytes_of(parameters)
