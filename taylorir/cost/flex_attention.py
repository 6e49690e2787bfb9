"""The memory of FlexAttention with SwinIR's position bias, counted from what the operator is defined to hold.

``torch.nn.attention.flex_attention`` reads the bias of a pair of tokens from the table of offsets inside its
kernel: no N x N numbers appear. To flash attention it adds the table and, in the backward pass, the gradient
of the table. Its kernel has no backward pass on a CPU, so a network with it is counted here and not run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from taylorir.networks import SwinIR


class _TableRead(torch.autograd.Function):
    """What attention gives, unchanged, as a function of the table too: its gradient is made in backward."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, table: Tensor) -> Tensor:
        ctx.like = table.shape
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_zeros(ctx.like)


class FlexAttentionCount(nn.Module):
    """Flash attention within windows that holds what FlexAttention with the bias would hold.

    Args:
        attention: the attention of a block, flash softmax without a position.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        offsets = (2 * attention.window_size - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, attention.num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return _TableRead.apply(self.attention(x), self.relative_position_bias_table)


def as_with_flex_attention(model: SwinIR) -> SwinIR:
    """Wrap, in place, the attention of every block by :class:`FlexAttentionCount`; returns the model."""
    for layer in model.layers:
        for block in layer.residual_group.blocks:
            block.attn = FlexAttentionCount(block.attn)
    return model
