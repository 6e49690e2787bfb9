"""Every allocation and release of tensor memory while a function runs, as a list of events in bytes.

A storage counts from the operator that returns it to the release of its last reference, so the curve of live
bytes is exact, for real tensors and for fake ones (``FakeTensorMode``: shapes and storages without contents)
alike. What an operator allocates and releases within itself (a workspace, a repacked weight) is not seen.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from taylorir.attention import as_on_gpu


@dataclass(frozen=True)
class Events:
    """Allocations (positive) and releases (negative), in the order in which they happened.

    Attributes:
        delta: int64 [E], bytes.
        owner: int64 [E], number of the storage that the event belongs to.
        marks: positions in the list by name, e.g. where the backward pass begins.
    """

    delta: np.ndarray
    owner: np.ndarray
    marks: dict[str, int] = field(default_factory=dict)

    def alive_at(self, position: int) -> set[int]:
        """Numbers of the storages that are alive before event ``position``."""
        numbers, index = np.unique(self.owner[:position], return_inverse=True)
        held = np.bincount(index, weights=self.delta[:position], minlength=len(numbers))
        return set(numbers[held > 0].tolist())


@dataclass(frozen=True)
class Template:
    """Events that can be recorded again, see :meth:`AllocationTrace.template`.

    Attributes:
        delta, owner: the events, storages numbered from 0.
        count: how many storages.
        results: what is left: number, size, dtype and device, view and weight of each.
    """

    delta: tuple[int, ...]
    owner: tuple[int, ...]
    count: int
    results: tuple[tuple, ...]


class AllocationTrace(TorchDispatchMode):
    """Record the storages that operators make while the mode is on.

    Args:
        known: tensors that exist already and are not to be counted.
        run: what runs an operator, called with it, its positional and its keyword arguments.
    """

    def __init__(self, known: Iterable[Tensor] = (), run: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self._run = run or _run
        self._delta: list[int] = []
        self._owner: list[int] = []
        self._marks: dict[str, int] = {}
        self._made = 0
        self._weight: dict[int, int] = {}
        self._paused = False
        self._alive: dict[int, tuple[int, weakref.ref]] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # kept, so that no address is used again
        for storage in self._known:
            self._alive[storage._cdata] = (-1, weakref.ref(storage))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Left alone, the mode imports torch's compiler at its first operator: 150 MiB that stay."""
        return False

    def mark(self, name: str) -> None:
        """Remember the present position under a name; a name can be used once."""
        if name in self._marks:
            raise ValueError(f"mark {name!r} is set already")
        self._marks[name] = len(self._delta)

    def has_mark(self, name: str) -> bool:
        """Whether a mark is set."""
        return name in self._marks

    def number_of(self, tensor: Tensor) -> int:
        """Number of a live tensor's storage; -1 for one that was known at the start.

        Raises:
            KeyError: no operator was seen to make it.
        """
        return self._alive[tensor.untyped_storage()._cdata][0]

    def repeat(self, before: int, start: int, times: int) -> None:
        """Record the last round of a loop ``times`` more, as if the loop had gone on.

        Two rounds that did the same are needed, so that what a round leaves to be released by the next (as a
        Python variable does until it is set anew) is told from what it leaves to be kept, which then counts
        for every round.

        Args:
            before: position at which the round before began.
            start: position at which the last round began.
            times: how many more rounds.

        Raises:
            ValueError: the two rounds differ.
        """
        made_before = self._made_in(before, start)
        made = self._made_in(start, len(self._delta))
        if [size for _, size in made_before] != [size for _, size in made]:
            raise ValueError("the rounds of the loop allocate differently")
        heir = {old: new for (old, _), (new, _) in zip(made_before, made, strict=True)}
        delta, owner = self._delta[start:], self._owner[start:]
        own = {number for number, _ in made}
        replaced = set()
        for number in set(owner) - own:
            if number not in heir:
                raise ValueError("a round of the loop released what was made before the loop")
            replaced.add(heir[number])
        alive = {number for number, _ in self._alive.values()}
        for number in (own & alive) - replaced:
            self._weight[number] = self._weight.get(number, 1) + times
        self._delta += times * delta
        self._owner += times * [heir.get(number, number) for number in owner]

    def _made_in(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(number, bytes) of the storages made between two positions, in order."""
        events = zip(self._owner[start:stop], self._delta[start:stop], strict=True)
        return list({number: (number, size) for number, size in events if size > 0}.values())

    def template(self, start: int, results: Sequence[Tensor]) -> Template:
        """What was recorded since ``start``, to be replayed where the same is done again.

        Args:
            start: position at which it began.
            results: the tensors that it left, each with a storage of its own, and no others.

        Raises:
            ValueError: it left something else, or released what it did not make.
        """
        made = [number for number, _ in self._made_in(start, len(self._delta))]
        local = {number: i for i, number in enumerate(made)}
        if set(self._owner[start:]) - set(made):
            raise ValueError("what was recorded released something that it had not made")
        left = [self.number_of(tensor) for tensor in results]
        alive = {number for number, _ in self._alive.values()}
        if alive & set(made) != set(left):
            raise ValueError("what was recorded left other storages than its results")
        kept = [
            (
                local[number],
                tensor.untyped_storage().nbytes() // tensor.element_size(),
                {"dtype": tensor.dtype, "device": tensor.device},
                (tensor.shape, tensor.stride(), tensor.storage_offset()),
                self._weight.get(number, 1),
            )
            for number, tensor in zip(left, results, strict=True)
        ]
        owner = [local[number] for number in self._owner[start:]]
        return Template(tuple(self._delta[start:]), tuple(owner), len(made), tuple(kept))

    def replay(self, template: Template) -> list[Tensor]:
        """Record a template's events once more and return tensors like its results."""
        first = self._made
        self._made += template.count
        results = []
        for local, numbers, kind, view, weight in template.results:
            self._paused = True
            base = torch.empty(numbers, **kind)
            results.append(base.as_strided(*view))
            self._paused = False
            storage = base.untyped_storage()
            release = _Release(self, storage._cdata, first + local, storage.nbytes())
            self._alive[storage._cdata] = (first + local, weakref.ref(storage, release))
            if weight > 1:
                self._weight[first + local] = weight
        self._delta += template.delta
        self._owner += [first + number for number in template.owner]
        return results

    @property
    def position(self) -> int:
        """Number of events so far."""
        return len(self._delta)

    def events(self) -> Events:
        """What was recorded so far."""
        return Events(np.array(self._delta, np.int64), np.array(self._owner, np.int64), dict(self._marks))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._run(func, args, kwargs or {})
        if func.namespace != "prim" and not self._paused:  # prim.device and its like ask, and make nothing
            self._see(out)
        return out

    def _see(self, out: Any) -> None:
        if isinstance(out, Tensor):
            storage = out.untyped_storage()
            address = storage._cdata
            if address not in self._alive:
                number, size = self._made, storage.nbytes()
                self._made += 1
                release = _Release(self, address, number, size)
                self._alive[address] = (number, weakref.ref(storage, release))
                if size:
                    self._delta.append(size)
                    self._owner.append(number)
        elif isinstance(out, list | tuple):
            for item in out:
                self._see(item)


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


class _Release:
    """Called when a storage dies. A class with slots, since there are tens of thousands of them."""

    __slots__ = ("address", "number", "size", "trace")

    def __init__(self, trace: AllocationTrace, address: int, number: int, size: int) -> None:
        self.trace, self.address, self.number, self.size = trace, address, number, size

    def __call__(self, _: weakref.ref) -> None:
        trace = self.trace
        trace._alive.pop(self.address, None)
        if not self.size:
            return
        trace._delta.append(-self.size * trace._weight.pop(self.number, 1))
        trace._owner.append(self.number)


@contextmanager
def record(known: Iterable[Tensor] = (), run: Callable[..., Any] | None = None) -> Iterator[AllocationTrace]:
    """Record allocations in a block, arguments as for :class:`AllocationTrace`.

    The cyclic garbage collector rests meanwhile, so that runs are equal.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with AllocationTrace(known, run) as trace:
            yield trace
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def cuda_attention_kernels() -> Iterator[None]:
    """Let ``scaled_dot_product_attention`` allocate on fake CPU tensors what PyTorch's CUDA kernels allocate.

    The choice follows PyTorch's ``can_use_flash_attention`` and ``can_use_mem_efficient_attention``: flash
    for half precision without a mask (it pads d to a multiple of 8), memory-efficient where d is a multiple
    of 4 (float32) or 8 (half), else the unfused composition, which holds all N x N weights. The operators'
    own shape rules give the output, the log-sum-exp and the gradients; scratch memory inside a kernel is not
    known to them, nor counted here.
    """
    functional.scaled_dot_product_attention = _cuda_attention  # a TorchFunctionMode is off during backward
    try:
        with as_on_gpu():
            yield
    finally:
        functional.scaled_dot_product_attention = scaled_dot_product_attention


def _cuda_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if dropout_p or is_causal:
        raise ValueError("the accounting knows attention without dropout and without a causal mask only")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    half = q.dtype in (torch.float16, torch.bfloat16)
    width = v.shape[-1]
    if attn_mask is None and half:
        q, k, v = (pad(x, (0, -x.shape[-1] % 8)) if x.shape[-1] % 8 else x for x in (q, k, v))
        out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False, scale=scale)[0]
        return out[..., :width]
    if q.shape[-1] % (8 if half else 4) or v.shape[-1] % (8 if half else 4):
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(q, k, v, attn_mask, scale=scale)
    needs_grad = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (q, k, v, attn_mask)
    )
    bias = None if attn_mask is None else _aligned_bias(attn_mask, q)
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, needs_grad, 0.0, False, scale=scale
    )[0]


def _aligned_bias(bias: Tensor, q: Tensor) -> Tensor:
    """The kernel wants an additive bias whose rows start at multiples of 16 numbers; it copies one that does
    not."""
    if bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=q.dtype).masked_fill_(~bias, -torch.inf)
    tokens = bias.shape[-1]
    if tokens % 16:
        bias = pad(bias, (0, -tokens % 16))[..., :tokens]
    return bias.expand(*q.shape[:-1], tokens)
