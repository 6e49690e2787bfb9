"""Relative position in linear time: what TaylorShift can have in place of SwinIR's position bias.

A bias added to the scores does not split into features of q and features of k. A rotation of q and k does, a
bias that is a product of a function of one place and a function of the other does too, and a convolution of v
needs no scores at all.

Shape legend: B images, H x W their tokens, C channels; windows of height x width = N tokens in row order; d
width of a head; p = d // 4 pairs of channels turned along each axis; R rank of a bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from taylorir.attention import unit
from taylorir.networks.windows import cached_by_shape

ROPE_BASE = 100.0


def rope_2d(x: Tensor, height: int, width: int, *, base: float = ROPE_BASE) -> Tensor:
    """Turn pairs of channels of q or k by angles that grow with a token's row and column (:eq:`eq-rope`).

    Pair j < p turns by row base^(-j / p), pair p + j by column base^(-j / p); pair i is channels i and
    2 p + i. The d - 4 p channels left over (2 of d = 10 or 30, 3 of d = 15) stay as they are. So the norm is
    kept, TaylorShift stays exact, and a score depends on the offset of its two tokens, not on their place.

    Args:
        x: q or k, [..., N, d] with N = height width and d >= 4.
        height, width: tokens of a window.
        base: ratio between the fastest turn, 1 radian a token, and the slowest there could be, 1 / base.

    Returns:
        The turned x, same shape and dtype; float16 and bfloat16 are turned in float32.

    Raises:
        ValueError: N is not height width, or d < 4.

    Source: rotary embedding, arXiv 2104.09864, equation 34, along two axes as in arXiv 2403.13298, section
        3.2.
    """
    if x.ndim < 2 or x.shape[-2] != height * width:
        expected = f"[..., {height} * {width} = {height * width}, d]"
        raise ValueError(f"x must have a token for each place of the window, {expected}, got {list(x.shape)}")
    pairs = x.shape[-1] // 4
    if pairs == 0:
        raise ValueError(f"x must be at least 4 wide to turn a pair for each axis, got shape {list(x.shape)}")
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    cos, sin = _turns(height, width, pairs, base, dtype, x.device)
    first, second, rest = x.to(dtype).split((2 * pairs, 2 * pairs, x.shape[-1] - 4 * pairs), dim=-1)
    turned = torch.cat((first * cos - second * sin, first * sin + second * cos, rest), dim=-1)
    return turned.to(x.dtype)


@cached_by_shape
def _turns(
    height: int, width: int, pairs: int, base: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Cosine and sine of each token's angles: [2, N, 2 p]."""
    speed = base ** (-torch.arange(pairs, dtype=dtype, device=device) / pairs)
    rows = torch.arange(height, dtype=dtype, device=device)[:, None, None] * speed
    columns = torch.arange(width, dtype=dtype, device=device)[None, :, None] * speed
    angles = torch.cat(torch.broadcast_tensors(rows, columns), dim=-1).flatten(0, 1)
    return torch.stack((angles.cos(), angles.sin()))


class LePE(nn.Module):
    """Locally enhanced position: a depthwise convolution of v, added to attention's output (:eq:`eq-lepe`).

    Each channel of a token gets a weighted sum of that channel over its neighbours; zeros surround the
    image. The convolution runs over whole images, so it also joins neighbouring windows.

    Args:
        channels: C.
        kernel_size: side of the neighbourhood, odd.

    Raises:
        ValueError: an even ``kernel_size``.

    Source: arXiv 2107.00652, equation 7.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that a token is in the middle, got {kernel_size}")
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, v: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return self.conv(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class RIB(nn.Module):
    """A learned position bias of low rank: lambda mu_i . nu_j, both of R numbers and length 1 (:eq:`eq-rib`).

    mu and nu are functions of a token's site in its rectangle: one hidden layer, which they share, over
    coordinates with their sines and cosines, then a linear map for each head. So the bias is a product of
    vectors, which are joined to q and k as further channels: no N x N table is formed, and a kernel that
    takes no bias serves. As mu and nu have length 1 the bias is at most lambda, and all joined vectors of a
    head have one length, so that TaylorShift's own normalisation leaves their product what it is.

    Args:
        num_heads: each has mu, nu and lambda (``strength``, at first ``STRENGTH``) of its own.
        head_dim: d; R is chosen so that d + R is a multiple of 8, as kernels want it.

    Source: the idea of arXiv 2603.06738 (RIB), whose factors have no fixed length.
    """

    HIDDEN = 32
    OCTAVES = 5
    LEAST_RANK = 6
    STRENGTH = 0.1

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rank = self.LEAST_RANK + -(head_dim + self.LEAST_RANK) % 8
        self.hidden = nn.Linear(2 + 4 * self.OCTAVES, self.HIDDEN)
        self.factors = nn.Linear(self.HIDDEN, 2 * num_heads * self.rank)
        self.strength = nn.Parameter(torch.full((num_heads,), self.STRENGTH))

    def forward(self, height: int, width: int, window: int) -> tuple[Tensor, Tensor]:
        """a and b [heads, N, R] of the N = height width places of a rectangle, row by row.

        Coordinates in (-1, 1) span a ``window``; a smaller rectangle begins at -1.
        """
        places = _waves(height, width, window, self.OCTAVES, self.hidden.weight.device)
        factors = self.factors(functional.gelu(self.hidden(places.to(self.hidden.weight.dtype))))
        factors = factors.view(height * width, 2, self.num_heads, self.rank)
        return unit(factors.permute(1, 2, 0, 3)).unbind(0)

    def join_softmax(self, q: Tensor, k: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """q, k [..., heads, N, d + R], whose product over sqrt(d + R) is q . k / sqrt(d) + c a . b."""
        both = q.shape[-1] + self.rank
        a = self.strength[:, None, None] * math.sqrt(both) * a
        return _join(q * math.sqrt(both / q.shape[-1]), a), _join(k, b)

    def join_taylor(
        self, q: Tensor, k: Tensor, a: Tensor, b: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """q, k [..., heads, N, d + R] whose score is tau q . k / |q| |k| + c a . b, tau [heads].

        TaylorShift gives it at the temperature :meth:`joint_temperature`. Where a q or k is zero, it has the
        bias of its token, made larger: their lengths are those of the bias alone.
        """
        tau, c = temperature[:, None, None], self.strength[:, None, None]
        return _join(tau * unit(q), c * a), _join(unit(k), b)

    def joint_temperature(self, temperature: Tensor) -> Tensor:
        """The product of the lengths of q and k from :meth:`join_taylor`, [heads]: sqrt(2 (tau^2 + c^2))."""
        return torch.sqrt(2 * (temperature.square() + self.strength.square()))


def _join(x: Tensor, channels: Tensor) -> Tensor:
    return torch.cat((x, channels.to(x.dtype).expand(*x.shape[:-1], -1)), -1)


@cached_by_shape
def _waves(height: int, width: int, window: int, octaves: int, device: torch.device) -> Tensor:
    """Row and column of each place, from -1 to 1 over a window, and their waves: [N, 2 + 4 octaves]."""
    along = (2 * torch.arange(max(height, width), device=device) + 1) / window - 1
    place = torch.stack(torch.meshgrid(along[:height], along[:width], indexing="ij"), -1).flatten(0, 1)
    angles = (math.pi * 2.0 ** torch.arange(octaves, device=device) * place[..., None]).flatten(1)
    return torch.cat((place, angles.sin(), angles.cos()), -1)
