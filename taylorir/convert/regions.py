"""Which tokens of a shifted window are neighbours in the image: labels, from geometry or from a mask.

Shape legend
    nW  windows of an image, row by row
    N   tokens of a window, row by row
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylorir.networks import partition

NUM_LABELS = 4
"""Labels of :func:`shifted_labels`: 0 .. 3."""

_FORBIDDEN = -50.0
"""What is added to a score where tokens may not meet is below this: -100 as a rule, or minus infinity."""


def shifted_labels(
    height: int,
    width: int,
    window: tuple[int, int],
    shift: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """Labels [nW, N], 0 to 3, of the windows of an image that was rolled by minus ``shift``.

    Of the windows at the lower and right borders, tokens that the roll brought there from the opposite border
    have other labels than those that were there. N x N masks of -100 say the same.

    Args:
        height, width: of the image in tokens, multiples of the window.
        window, shift: (down, right) of a rectangle; a shift of 0 brings nothing.
    """
    rows = torch.arange(height, device=device) >= height - shift[0]
    columns = torch.arange(width, device=device) >= width - shift[1]
    labels = 2 * rows[:, None].long() + columns[None, :].long()
    return partition(labels[None, :, :, None], *window)[0, :, :, 0]


def labels_of_mask(mask: Tensor) -> Tensor:
    """Labels [..., N] that say what a mask [..., N, N] says: that of a token is the first token it may meet.

    Args:
        mask: boolean, True where tokens may meet; or added to the scores, 0 where they may meet and -100 or
            less elsewhere.

    Raises:
        ValueError: the mask is not one of separate regions, so no labels can say it.
    """
    allowed = mask if mask.dtype == torch.bool else mask == 0
    labels = allowed.byte().argmax(-1)
    separate = ((labels[..., :, None] == labels[..., None, :]) == allowed).all()
    if not separate or (mask.dtype != torch.bool and (mask[~allowed] > _FORBIDDEN).any()):
        raise ValueError(
            f"the mask {list(mask.shape)} is not block-structured: TaylorShift keeps regions apart, "
            "and adds nothing to single scores"
        )
    return labels
