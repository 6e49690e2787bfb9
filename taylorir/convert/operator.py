"""What every converted module attends with: the one place of temperatures and of centred keys.

Shape legend
    B   windows of all images, or images
    H   heads
    N   queries; M keys, the same tokens as a rule
    d   width of a head
"""

from __future__ import annotations

import functools
import logging
from typing import ClassVar

import torch
from torch import Tensor, nn

from taylorir.attention import centre_keys, crossover_flops, taylor_attention, taylor_direct
from taylorir.convert.adapted import Adapted
from taylorir.convert.regions import NUM_LABELS, labels_of_mask

logger = logging.getLogger(__name__)


class TaylorAttention(Adapted):
    """An adapter of a module that attends: it extracts q, k, v, calls :meth:`attend`, merges."""

    kind: ClassVar[str] = "window"
    """What :func:`taylorir.convert.survey` calls it."""

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

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        regions: Tensor | tuple[Tensor, Tensor] | None = None,
        temperature: Tensor | None = None,
    ) -> Tensor:
        """TaylorShift in place of softmax(q k^T / sqrt(d) + bias) v.

        Args:
            q, k, v: [B, H, N, d]; keys and values may have another number of tokens, and v another width.
            regions: labels [nW, N], 0 to 3, of the windows of an image, B being images times nW; a pair of
                them, of queries and of keys; or a mask [nW, N, N], which is read as labels.
            temperature: of each head, default all that the module has.

        Returns:
            [B, H, N, width of v].
        """
        temperature = self.temperature if temperature is None else temperature
        if regions is None:
            return self._attend(q, k, v, temperature)
        known = not isinstance(regions, Tensor) or regions.ndim == 2
        if isinstance(regions, Tensor):
            regions = (regions if known else labels_of_mask(regions),) * 2
        labels = regions[0].to(q.device)
        labels = (labels, labels if regions[0] is regions[1] else regions[1].to(q.device))
        q, k, v = (x.unflatten(0, (-1, len(labels[0]))) for x in (q, k, v))
        return self._attend(q, k, v, temperature, labels, NUM_LABELS if known else None).flatten(0, 1)

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        temperature: Tensor,
        labels: tuple[Tensor, Tensor] | None = None,
        num_labels: int | None = None,
    ) -> Tensor:
        if not torch.compiler.is_compiling() and k.shape[-2] < crossover_flops(k.shape[-1]):
            _say_in_vain(k.shape[-2], k.shape[-1])
        if self.centre_keys:
            k = centre_keys(k, labels, num_regions=num_labels)
        if self.order == 2:
            one_for_both = labels[0] if labels and labels[0] is labels[1] else labels
            return taylor_attention(q, k, v, temperature=temperature, regions=one_for_both)
        mask = None if labels is None else (labels[0][:, :, None] == labels[1][:, None, :])[:, None]
        return taylor_direct(q, k, v, temperature=temperature, mask=mask, order=self.order)


@functools.cache
def _say_in_vain(keys: int, width: int) -> None:
    """Warn, once in a process for a number of keys."""
    least = crossover_flops(width)
    logger.warning("%d keys of d = %d are fewer than %d: TaylorShift saves nothing there", keys, width, least)


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
