"""``survey``: every softmax(q k^T + bias) v of a network, found by running it once, without contents.

A copy of the network without contents is run (no memory, no arithmetic), and functions of torch are watched
as they are called: a product of two tensors may be scores; what shapes, scales, biases and masks make of
scores are still scores; softmax makes them weights; the product of weights with a third tensor is an
attention. Of families nothing is known here but what the table of adapters says of a module.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from taylorir.attention import crossover_flops
from taylorir.convert.operator import TaylorAttention
from taylorir.convert.table import adapter_of, reason_of
from taylorir.cost import windows_as_wholes
from taylorir.networks import WindowAttention, kept_apart

if TYPE_CHECKING:
    import pandas as pd


def survey(model: nn.Module, lr: Tensor) -> pd.DataFrame:
    """One row for every softmax attention of a network, and what :func:`taylorize` does with it.

    Args:
        model: any network; it is neither changed nor run, but for one whose course depends on the values that
            it sees: of that a copy is run.
        lr: an input of it, of which as a rule only shape and dtype matter.

    Returns:
        Columns: ``module`` and ``class``; ``kind``: window, rectangle, overlapping, stripe, across, global or
        channel; ``queries`` and ``keys``, their numbers N and M; ``heads``, and the ``width`` d of each;
        whether there are a ``bias`` and a ``mask``; ``crossover``, the N0 of d from which TaylorShift takes
        fewer operations; ``known``, whether taylorize converts the module; ``note``: why not, or why in vain.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with FakeCopyMode(fake):
            copied = copy.deepcopy(model)
        with fake:
            products = _watched(copied, torch.empty(lr.shape, dtype=lr.dtype))
    except _DEPENDENT:
        products = _watched(copy.deepcopy(model), lr)
    import pandas as pd  # here, as who converts a network for a picture needs none

    return pd.DataFrame([_row(model, site, len(lr)) for site in products if site.weighted], columns=COLUMNS)


def _watched(model: nn.Module, lr: Tensor) -> list[_Product]:
    """The products of one run; the network is changed."""
    model.eval().requires_grad_(True)  # so that what is added to scores tells a bias from a mask
    with windows_as_wholes(), kept_apart(), torch.enable_grad(), _Watch(model) as watch:
        model(lr)
    return watch.products


COLUMNS = (
    *("module", "class", "kind", "queries", "keys", "heads", "width", "bias", "mask", "crossover", "known"),
    "note",
)

_DEPENDENT = (
    torch._subclasses.fake_tensor.DataDependentOutputException,
    torch._subclasses.fake_tensor.DynamicOutputShapeException,
)


@dataclass
class _Product:
    """A product of [..., N, d] with [..., d, M], and what became of it."""

    module: str
    queries: int
    keys: int
    width: int
    batch: tuple[int, ...]
    bias: bool = False
    mask: bool = False
    weighted: bool = False
    used_elsewhere: bool = False


def _row(model: nn.Module, site: _Product, images: int) -> dict[str, object]:
    module = model.get_submodule(site.module)
    heads = _heads(module, site)
    adapter = adapter_of(module)
    ours = isinstance(module, WindowAttention)
    known = ours or (adapter is not None and issubclass(adapter, TaylorAttention))
    of_channels = not known and _is_of_channels(model, site, heads)
    crossover = crossover_flops(site.width)
    if of_channels:
        kind, note = "channel", f"attends over {site.keys} channels, not tokens"
    else:
        kind = (
            "window"
            if ours
            else adapter.kind
            if known
            else _kind(site, math.prod(site.batch) // (heads * images))
        )
        note = f"saves nothing: {site.keys} keys are fewer than {crossover}" if site.keys < crossover else ""
        if not known:
            note = reason_of(module) or f"no adapter knows {type(module).__name__}"
        if site.used_elsewhere:
            note = "its weights are used elsewhere"
    values = (site.module, type(module).__name__, kind, site.queries, site.keys, heads, site.width)
    return dict(zip(COLUMNS, (*values, site.bias, site.mask, crossover, known, note), strict=True))


def _heads(module: nn.Module, site: _Product) -> int:
    for name in ("num_heads", "num_attention_heads", "n_heads", "heads", "nh"):
        if isinstance(heads := getattr(module, name, None), int):
            return heads
    return site.batch[-1] if len(site.batch) > 1 else 1


def _kind(site: _Product, groups: int) -> str:
    if site.keys != site.queries:
        return "across"
    if groups == 1:
        return "global"
    return "window" if math.isqrt(site.keys) ** 2 == site.keys else "rectangle"


def _is_of_channels(model: nn.Module, site: _Product, heads: int) -> bool:
    """Whether scores are of channels: heads times rows is a number of channels, heads times d is not.

    Channels are told by the weights around: of the module, or of the nearest module about it that can tell.
    """
    name = site.module
    while True:
        sides = {side for parameter in model.get_submodule(name).parameters() for side in parameter.shape}
        sides |= {side // 2 for side in sides}  # each half of the channels may have an attention of its own
        rows, columns = heads * site.queries in sides, heads * site.width in sides
        if rows != columns or not name:
            return rows and not columns
        name = name.rpartition(".")[0]


class _Watch(TorchFunctionMode):
    """Follows products through the functions that are called on them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.products: list[_Product] = []
        self._scores, self._weights = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._biased_masks = WeakTensorKeyDictionary()
        self._inside = [""]
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name))
            module.register_forward_hook(lambda *_: self._inside.pop() and None)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function in _FUSED:
            self._fused(*_FUSED[function](args, kwargs))
        elif isinstance(result, Tensor):
            self._follow(
                function, args, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], result
            )
        return result

    def _follow(self, function: Callable, args: tuple, tensors: list[Tensor], result: Tensor) -> None:
        name = function.__name__
        weights = [self._weights[x] for x in tensors if x in self._weights]
        scores = [self._scores[x] for x in tensors if x in self._scores]
        if function in _PRODUCTS:
            for site in weights:
                site.weighted = True
            if not weights:
                self._product(args, tensors, result)
        elif function in _SOFTMAXES and scores:
            self._weights[result] = scores[0]
        elif weights:
            weights[0].used_elsewhere |= name not in _REARRANGING
            self._weights[result] = weights[0]
        elif scores and tuple(result.shape[-2:]) == (scores[0].queries, scores[0].keys):
            self._scores[result] = scores[0]
            self._add(scores[0], name, [x for x in tensors if x not in self._scores and x.ndim > 1])
        elif name in _ADDING and {x.requires_grad for x in tensors if x.ndim > 1} == {True, False}:
            self._biased_masks[result] = True

    def _product(self, args: tuple, tensors: list[Tensor], result: Tensor) -> None:
        width = tensors[-2].shape[-1]
        if isinstance(args[0], str):
            first, result_axes = args[0].replace(" ", "").partition(",")[0], args[0].partition("->")[2]
            summed = [axis for axis in first if axis not in result_axes]
            width = tensors[0].shape[first.index(summed[0])] if len(summed) == 1 else 0
        if result.ndim > 1 and width:
            self._scores[result] = self._found(result.shape, width)

    def _found(self, shape: tuple[int, ...], width: int) -> _Product:
        self.products.append(_Product(self._inside[-1], *shape[-2:], width, tuple(shape[:-2])))
        return self.products[-1]

    def _fused(self, shape: tuple[int, ...], width: int, added: Tensor | None) -> None:
        site = self._found(shape, width)
        site.weighted = True
        if added is not None:
            site.bias = site.mask = added in self._biased_masks
            self._add(site, "add", [added])

    @staticmethod
    def _add(site: _Product, name: str, others: list[Tensor]) -> None:
        for other in others:
            if name in _MASKING or (name in _ADDING and not other.requires_grad):
                site.mask = True
            elif name in _ADDING:
                site.bias = True


_PRODUCTS = {
    *(torch.matmul, torch.bmm, torch.baddbmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm),
}
_SOFTMAXES = {torch.softmax, Tensor.softmax, functional.softmax}
_ADDING = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__"}
_MASKING = {"masked_fill", "masked_fill_", "where"}
_REARRANGING = {
    *(
        "view",
        "reshape",
        "permute",
        "transpose",
        "contiguous",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
    ),
    *("to", "type_as", "float", "double", "clone", "dropout", "__getitem__", "__get__", "einops"),
}
_FUSED = {
    functional.scaled_dot_product_attention: lambda args, kwargs: (
        (*args[0].shape[:-1], args[1].shape[-2]),
        args[0].shape[-1],
        kwargs.get("attn_mask", args[3] if len(args) > 3 else None),
    ),
    functional.multi_head_attention_forward: lambda args, kwargs: (
        (args[0].shape[1], args[4], args[0].shape[0], args[1].shape[0]),
        args[3] // args[4],
        kwargs.get("attn_mask"),
    ),
}
"""Functions that are a whole attention: the shape of their scores, d, and what is added to them."""
