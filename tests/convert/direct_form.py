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
        self.units: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.replaced = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.inside or self.inside[-1] not in self.classes:
            return function(*args, **kwargs)
        if function in SOFTMAXES:
            return self.weights(args[0])
        if function is functional.multi_head_attention_forward:
            return self.multihead(*args)
        if function is functional.scaled_dot_product_attention:
            return self.attended(*args, **kwargs)
        if function is functional.normalize:
            self.units.append((function(*args, **kwargs), args[0]))
            return self.units[-1][0]
        if function is torch.einsum and len(args) == 3:
            self.remember(*in_common_axes(args[0], args[1], args[2]))
        elif function in PRODUCTS:
            self.remember(args[0], args[1].mT)
        return function(*args, **kwargs)

    def remember(self, q, k):
        """Of attention of cosines, the vectors that unit vectors were made of: they are what is centred."""
        made_of = {unit.data_ptr(): vector for unit, vector in self.units}
        self.pairs.append((made_of.get(q.data_ptr(), q), made_of.get(k.data_ptr(), k)))

    def weights(self, scores):
        q, k = self.pairs[-1]
        allowed = scores > FORBIDDEN
        # the product may have other batch axes than the scores, which a mask was added to
        shape = (*torch.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2])
        return self.taylor_weights(q, k, allowed.reshape(shape)).reshape(scores.shape)

    def attended(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if attn_mask is None:
            attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
        allowed = attn_mask if attn_mask.dtype == torch.bool else attn_mask > FORBIDDEN
        return self.taylor_weights(q, k, allowed) @ v

    def multihead(self, query, key, value, _, heads, weight, bias, *others):
        """torch's own function, which no mode sees into: tokens first, [N, B, C]."""
        biases = [None] * 3 if bias is None else bias.chunk(3)
        q, k, v = (
            functional.linear(x, w, b).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)  # [B, H, N, d]
            for x, w, b in zip((query, key, value), weight.chunk(3), biases, strict=True)
        )
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
        y = (self.taylor_weights(q, k, allowed) @ v).permute(2, 0, 1, 3).flatten(2)
        return functional.linear(y, *others[4:6]), None

    def taylor_weights(self, q, k, allowed):
        """Of x_ij = tau q_i . (k_j - m_i) / |q_i| |k_j - m_i|, m_i the mean of the keys of i, or zero."""
        self.replaced += 1
        allowed = allowed.to(q.dtype)
        means = allowed / allowed.sum(-1, keepdim=True) @ k if self.centre_keys else torch.zeros_like(q)
        squares = (k * k).sum(-1)[..., None, :] - 2 * means @ k.mT + (means * means).sum(-1, keepdim=True)
        away = squares > 1e-12  # the only key of a region is its mean
        q = functional.normalize(q, dim=-1)
        products = (
            (q @ k.mT - (q * means).sum(-1, keepdim=True)) * torch.where(away, squares, 1).rsqrt() * away
        )
        weights = 1 + self.temperature * products + (self.temperature * products) ** 2 / 2
        weights = weights * allowed
        return weights / weights.sum(-1, keepdim=True)


def in_common_axes(equation, q, k):
    """Operands of a product of scores written as einsum, as [..., N, d] and [..., M, d]."""
    operands, result = equation.replace(" ", "").split("->")
    first, second = operands.split(",")
    batch, width = result[:-2], next(letter for letter in first if letter not in result)
    q = q.permute([first.index(letter) for letter in (*batch, result[-2], width)])
    return q, k.permute([second.index(letter) for letter in (*batch, result[-1], width)])


@contextlib.contextmanager
def replaced_softmax(
    model: nn.Module, classes: tuple[str, ...], temperature: float, centre_keys: bool = False
):
    """The mode :class:`DirectForm`, which knows the class of the module that runs."""
    mode = DirectForm(classes, temperature, centre_keys)
    hooks = []
    for module in model.modules():
        if type(module).__name__ not in classes:
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
