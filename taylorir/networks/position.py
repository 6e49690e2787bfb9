"""Relative position in linear time: what TaylorShift can have in place of SwinIR's position bias.

A bias added to the scores does not split into features of q and features of k. A rotation of q and k does,
and a convolution of v needs no scores at all.

Shape legend: B images, H x W their tokens, C channels; windows of height x width = N tokens in row order; d
width of a head; p = d // 4 pairs of channels turned along each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
