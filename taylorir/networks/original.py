"""SwinIR's attention with the memory habits of its authors' code: the baseline of the paper's memory claim.

The numbers are those of :mod:`taylorir.networks.swinir`; what differs is what is held and copied (read off
the authors' repository, FACTS 1.2): every block owns an int64 map [N, N] from token pairs to rows of its bias
table; shifted windows are masked by adding float32 0 and -100; the masks are a buffer for the image size that
the network was built for, and for any other size every block makes them anew in every forward, unshifted
blocks as well, whose mask is all zero.

Shape legend: see :mod:`taylorir.networks.swinir`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taylorir.networks.swinir import SwinIR
from taylorir.networks.window_attention import WindowAttention
from taylorir.networks.windows import relative_offsets, window_mask


class OriginalWindowAttention(nn.Module):
    """Attention of one block as the authors' code runs it.

    Args:
        attention: the attention whose parameters to use.
        img_size: side of the token grid that the network was built for.
    """

    def __init__(self, attention: WindowAttention, img_size: int) -> None:
        super().__init__()
        self.window_size, self.num_heads = attention.window_size, attention.num_heads
        self.shift_size, self.img_size = attention.shift_size, img_size
        self.qkv, self.proj = attention.qkv, attention.proj
        self.relative_position_bias_table = attention.relative_position_bias_table
        offsets = relative_offsets(self.window_size, self.relative_position_bias_table.device)
        index = offsets[:, None, :, None] * (2 * self.window_size - 1) + offsets[None, :, None, :]
        self.register_buffer("relative_position_index", index.flatten(2).flatten(0, 1).contiguous())
        masked = self.shift_size and img_size > self.window_size
        self.register_buffer("attn_mask", self._mask(img_size, img_size) if masked else None)

    def _mask(self, height: int, width: int) -> Tensor:
        """[nW, N, N] float32: 0 where tokens may meet, -100 elsewhere."""
        device = self.relative_position_bias_table.device
        allowed = window_mask.__wrapped__(
            height, width, self.window_size, self.shift_size, device
        )  # not kept
        return torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        batch, height, width, channels = x.shape
        window, tokens = self.window_size, self.window_size**2
        if self.shift_size:
            x = torch.roll(x, (-self.shift_size, -self.shift_size), (1, 2))
        x = x.view(batch, height // window, window, width // window, window, channels)
        x = x.transpose(2, 3).reshape(-1, tokens, channels)  # [B nW, N, C]
        mask = self.attn_mask if (height, width) == 2 * (self.img_size,) else self._mask(height, width)

        qkv = self.qkv(x).view(-1, tokens, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B nW, heads, N, d]
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        scores = scores + bias.view(tokens, tokens, -1).permute(2, 0, 1).contiguous()
        if mask is not None:
            scores = scores.unflatten(0, (batch, -1)) + mask[:, None]
            scores = scores.flatten(0, 1)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, channels)
        y = self.proj(y)

        y = y.view(batch, height // window, width // window, window, window, channels)
        y = y.transpose(2, 3).reshape(batch, height, width, channels)
        return torch.roll(y, (self.shift_size, self.shift_size), (1, 2)) if self.shift_size else y


def as_in_original(model: SwinIR, img_size: int) -> SwinIR:
    """Replace, in place, the attention of every block by :class:`OriginalWindowAttention`; returns the model.

    Args:
        model: a SwinIR with softmax attention and the position bias.
        img_size: side of the LR crop that the network is built for, padded to a multiple of the window; its
            masks are held as buffers.

    Raises:
        ValueError: another attention, or no position bias.
    """
    if model.config.attention != "softmax" or model.config.position != "bias":
        raise ValueError(
            "the original network has softmax attention with position 'bias', "
            f"got {model.config.attention!r} with position {model.config.position!r}"
        )
    window = model.config.window_size
    padded = -(-img_size // window) * window
    for layer in model.layers:
        for block in layer.residual_group.blocks:
            block.attn = OriginalWindowAttention(block.attn, padded)
    return model
