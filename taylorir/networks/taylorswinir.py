"""TaylorSwinIR (arXiv 2411.10231): what differs from SwinIR, and nothing else.

1. The attention inside a window is TaylorShift (arXiv 2403.02920) in place of softmax:
   :class:`TaylorWindowAttention`.
2. A head has a learned temperature, initially 1.
3. There is no relative position bias, as it cannot be written with TaylorShift's features; "rope", "lepe"
   and "rib" can.
4. Windows are large, 48 x 48 tokens in the paper; shifted ones are kept apart by region labels, not by
   adding -100.

Shape legend: see :mod:`taylorir.networks.swinir`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taylorir.attention import centre_keys, taylor_attention, taylor_direct, taylor_efficient
from taylorir.networks.config import ModelConfig
from taylorir.networks.swinir import SwinIR
from taylorir.networks.window_attention import WindowAttention
from taylorir.networks.windows import NUM_REGIONS, kept_regions, window_mask


class TaylorWindowAttention(WindowAttention):
    """TaylorShift attention within windows (:eq:`eq-taylor-window-attention`).

    Args:
        config: the network's configuration; ``attention_form`` says how the same numbers are computed.
        num_heads: heads; the cost falls with the square of their number, as each has embed_dim / num_heads
            channels.
        shift_size: 0, or half a window.
    """

    def __init__(self, config: ModelConfig, num_heads: int, shift_size: int) -> None:
        super().__init__(config, num_heads, shift_size)
        self.attention_form = config.attention_form
        self.scale_output = config.scale_output
        self.rolled = True
        self.centre_keys = config.centre_keys
        self.temperature = nn.Parameter(torch.ones(num_heads))

    def of_rolled(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """As in :class:`WindowAttention`."""
        settings = {"temperature": self.joint_temperature()}
        attend = _FORMS[self.attention_form]
        if self.shift_size:
            place = (*size, self.window_size, self.shift_size, q.device)
            if self.attention_form == "direct":
                settings["mask"] = window_mask(*place)[:, None]
            else:
                settings["regions"] = kept_regions(*place)
        return self._scaled(attend(q, k, v, **settings))

    def of_rectangles(self, q: Tensor, k: Tensor, v: Tensor, bias: None = None) -> Tensor:
        """As in :class:`WindowAttention`."""
        return self._scaled(_FORMS[self.attention_form](q, k, v, temperature=self.joint_temperature()))

    def _scaled(self, y: Tensor) -> Tensor:
        """y by the factor sqrt(N / d), if it is asked for; N is w w, of border rectangles as well."""
        return y * (self.window_size**2 / self.head_dim) ** 0.5 if self.scale_output else y

    def _positioned(
        self, q: Tensor, k: Tensor, height: int, width: int, place: tuple | None
    ) -> tuple[Tensor, Tensor]:
        if self.centre_keys:
            k = self.centred(k, None if place is None else kept_regions(*place))
        return super()._positioned(q, k, height, width, place)

    @staticmethod
    def centred(k: Tensor, regions: Tensor | None) -> Tensor:
        """k [B, n, heads, N, d] less its mean over the window or, with labels [n, N], the region."""
        return centre_keys(k, regions, num_regions=NUM_REGIONS)

    def join(self, q: Tensor, k: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`WindowAttention`, for scores of the temperature :meth:`joint_temperature`."""
        return self.rib.join_taylor(q, k, a, b, self.temperature)

    def joint_temperature(self) -> Tensor:
        """The temperature [heads] of q, k as they are attended with: with a position bias in them or not."""
        return self.temperature if self.rib is None else self.rib.joint_temperature(self.temperature)


class TaylorSwinIR(SwinIR):
    """SwinIR with :class:`TaylorWindowAttention`; all else, and all names, are SwinIR's."""

    attention = "taylor"

    @staticmethod
    def make_attention(config: ModelConfig, num_heads: int, shift_size: int) -> TaylorWindowAttention:
        return TaylorWindowAttention(config, num_heads, shift_size)


def taylor_efficient_published(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    regions: Tensor | None = None,
    scale_output: bool = False,
) -> Tensor:
    """Efficient TaylorShift in the published form: all d^2 products as features, each kept for the backward.

    The same numbers as :func:`taylorir.attention.taylor_efficient`, at the cost that the TaylorShift
    authors count; it is here to be measured. Not taken over are the factors that only rescale numerator and
    denominator alike.

    y_i = sum_j w_ij v_j / sum_j w_ij,  w_ij = 1 + x_ij + x_ij^2 / 2,  x_ij^2 = (q_i (x) q_i) . (k_j (x) k_j)

    Args:
        q, k, v: [..., H, N, d].
        temperature, scale_output: as in :func:`taylorir.attention.taylor_efficient`.
        regions: labels 0..3 as :func:`taylorir.networks.window_regions` gives them, [..., N].
    """
    tokens, width = q.shape[-2:]
    if isinstance(temperature, Tensor):
        temperature = temperature.view(-1, 1, 1)
    q = temperature * nn.functional.normalize(q, dim=-1)
    k = nn.functional.normalize(k, dim=-1)
    qq = (q[..., :, None] * q[..., None, :]).flatten(-2)  # [..., H, N, d d]
    kk = (k[..., :, None] * k[..., None, :]).flatten(-2)
    v1 = nn.functional.pad(v, (0, 1), value=1.0)  # [..., H, N, d + 1], the last column sums the weights

    def read_out(v1: Tensor) -> Tensor:
        return 0.5 * qq @ (kk.mT @ v1) + q @ (k.mT @ v1) + v1.sum(-2, keepdim=True)

    if regions is None:
        y = read_out(v1)
    else:
        members = [(regions == label)[..., None, :, None] for label in range(NUM_REGIONS)]
        y = sum(member * read_out(v1 * member) for member in members)
    y = y[..., :-1] / y[..., -1:]
    return y * (tokens / width) ** 0.5 if scale_output else y


_FORMS = {
    "auto": taylor_attention,
    "direct": taylor_direct,
    "efficient": taylor_efficient,
    "published": taylor_efficient_published,
}
