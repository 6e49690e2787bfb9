"""A network of others with its softmax replaced in place: what a converted one is compared with.

It knows nothing of the adapters. While a network runs, the last product of queries and keys is remembered.
Where softmax is taken of what became of it, the weights of TaylorShift's direct form stand in, of the same
queries and keys, and the network goes on with them. Scores far below zero are those that a mask forbids.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FORBIDDEN = -50.0
PRODUCTS = (torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm)
SOFTMAXES = (torch.softmax, torch.Tensor.softmax, functional.softmax)


class DirectForm(TorchFunctionMode):
    """Within the block, softmax attention of modules of the given classes is TaylorShift's direct form."""

    def __init__(self, classes: tuple[str, ...], temperature: float, centre_keys: bool = False) -> None:
        super().__init__()
        self.classes, self.temperature, self.centre_keys = classes, temperature, centre_keys
        self.inside: list[str] = []
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.replaced = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.inside or self.inside[-1] not in self.classes:
            return function(*args, **kwargs)
        if function in SOFTMAXES:
            return self.weights(args[0])
        if function is functional.scaled_dot_product_attention:
            return self.attended(*args, **kwargs)
        if function is torch.einsum and len(args) == 3:
            self.remember(*in_common_axes(args[0], args[1], args[2]))
        elif function in PRODUCTS:
            self.remember(args[0], args[1].mT)
        return function(*args, **kwargs)

    def remember(self, q, k):
        self.pairs.append((q, k))

    def weights(self, scores):
        q, k = self.pairs[-1]
        shape = (*torch.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2])
        allowed = scores > FORBIDDEN
        self.replaced += 1
        # the product may have other batch axes than the scores, which a mask was added to
        products = self.products(q, k, allowed.reshape(shape)).reshape(scores.shape)
        weights = (1 + products + products**2 / 2) * allowed
        return weights / weights.sum(-1, keepdim=True)

    def attended(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        self.replaced += 1
        if attn_mask is None:
            attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
        allowed = attn_mask if attn_mask.dtype == torch.bool else attn_mask > FORBIDDEN
        products = self.products(q, k, allowed)
        weights = (1 + products + products**2 / 2) * allowed
        return weights / weights.sum(-1, keepdim=True) @ v

    def products(self, q, k, allowed):
        k = k.expand(*q.shape[:-2], *k.shape[-2:])
        if not self.centre_keys:
            return self.temperature * functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).mT
        mine = allowed.to(k.dtype).expand(*q.shape[:-1], k.shape[-2])
        means = mine / mine.sum(-1, keepdim=True) @ k  # of the keys that each query may meet
        centred = functional.normalize(k[..., None, :, :] - means[..., :, None, :], dim=-1)
        return self.temperature * (functional.normalize(q, dim=-1)[..., None, :] * centred).sum(-1)


def in_common_axes(equation, q, k):
    """Operands of a product of scores written as einsum, as [..., N, d] and [..., M, d]."""
    (first, second), result = (
        equation.replace(" ", "").split("->")[0].split(","),
        equation.split("->")[1].strip(),
    )
    batch, width = result[:-2], next(letter for letter in first if letter not in result)
    order = lambda letters, end: [letters.index(letter) for letter in (*batch, end, width)]  # noqa: E731
    return q.permute(order(first, result[-2])), k.permute(order(second, result[-1]))


@contextlib.contextmanager
def replaced_softmax(
    model: nn.Module, classes: tuple[str, ...], temperature: float, centre_keys: bool = False
):
    """The mode :class:`DirectForm`, which knows the class of the module that runs."""
    mode = DirectForm(classes, temperature, centre_keys)
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Softmax | nn.Dropout | nn.Identity):
            continue
        hooks.append(
            module.register_forward_pre_hook(lambda module, _: mode.inside.append(type(module).__name__))
        )
        hooks.append(module.register_forward_hook(lambda *_: mode.inside.pop() and None))
    try:
        with mode:
            yield mode
    finally:
        for hook in hooks:
            hook.remove()
