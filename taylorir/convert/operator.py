"""What every converted module attends with: the one place of temperatures and of centred keys.

Shape legend
    B   windows of all images, or images
    H   heads
    N   queries; M keys, the same tokens as a rule
    d   width of a head
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taylorir.attention import taylor_attention, taylor_direct
from taylorir.convert.adapted import Adapted
from taylorir.convert.regions import NUM_LABELS, labels_of_mask


class TaylorAttention(Adapted):
    """An adapter of a module that attends: it extracts q, k, v, calls :meth:`attend`, merges."""

    temperature: nn.Parameter
    centre_keys: bool
    order: int = 2
    """Last power of the series. Above 2, which is for measurements, all N x M weights are formed."""

    def count_heads(self) -> int:
        """The number of heads, each of which has a temperature."""
        return self.num_heads

    def set_temperatures(self, temperature: float, centre_keys: bool, like: Tensor) -> None:
        """Give every head a temperature that can be trained, of the dtype and device of ``like``."""
        self.temperature = nn.Parameter(like.new_full((self.count_heads(),), temperature))
        self.centre_keys = centre_keys

    def attend(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None = None) -> Tensor:
        """TaylorShift in place of softmax(q k^T / sqrt(d) + bias) v.

        Args:
            q, k, v: [B, H, N, d]; keys and values may have another number of tokens.
            regions: labels [nW, N] of the windows of an image, B being images times nW; or a mask
                [nW, N, N], which is read as labels.

        Returns:
            [B, H, N, d].
        """
        if regions is None:
            k = centred(k) if self.centre_keys else k
            if self.order > 2:
                return taylor_direct(q, k, v, temperature=self.temperature, order=self.order)
            return taylor_attention(q, k, v, temperature=self.temperature)
        labels = (regions if regions.ndim == 2 else labels_of_mask(regions)).to(q.device)
        q, k, v = (x.unflatten(0, (-1, len(labels))) for x in (q, k, v))
        k = centred(k, labels) if self.centre_keys else k
        if self.order > 2:
            mask = (labels[:, :, None] == labels[:, None, :])[:, None]
            y = taylor_direct(q, k, v, temperature=self.temperature, mask=mask, order=self.order)
            return y.flatten(0, 1)
        return taylor_attention(q, k, v, temperature=self.temperature, regions=labels).flatten(0, 1)


def centred(k: Tensor, labels: Tensor | None = None) -> Tensor:
    """Keys minus the mean of their region, in linear time: [..., H, M, d] to the same.

    Softmax does not see it: the scores of a query all fall by the same number.

    Args:
        labels: [..., M], integers from 0 on, below M or ``NUM_LABELS``.
    """
    if labels is None:
        return k - k.mean(-2, keepdim=True)
    index = labels.expand(*k.shape[:-3], -1)[..., None, :, None].expand(k.shape)
    slots = max(k.shape[-2], NUM_LABELS)
    sums = k.new_zeros(*k.shape[:-2], slots, k.shape[-1]).scatter_add(-2, index, k)
    counts = torch.zeros(*labels.shape[:-1], slots, dtype=k.dtype, device=k.device)
    counts = counts.scatter_add(-1, labels, torch.ones_like(labels, dtype=k.dtype)).clamp_min(1)
    return k - (sums / counts[..., None, :, None]).gather(-2, index)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., N, H d] to [..., H, N, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: Tensor) -> Tensor:
    """[..., H, N, d] to [..., N, H d]."""
    return x.transpose(-2, -3).flatten(-2)


def split_qkv(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """One projection [..., N, 3 H d] to q, k, v [..., H, N, d]."""
    q, k, v = (split_heads(x, heads) for x in qkv.chunk(3, -1))
    return q, k, v
