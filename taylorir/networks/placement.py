"""Where a network runs, and whether it may work on a part of its tokens at a time.

On a CPU, what a step writes is read from memory by the next unless both stay within the processor's cache; on
a GPU every part would be one more launch of each kernel. So a network that runs on a CPU, for its output
alone, takes some tokens through several steps before the next ones: the same numbers, fewer bytes moved, and
no activation of the whole image but two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from taylorir.attention import is_transformed, on_cpu

PART_TOKENS = 4608
"""Tokens that are worked on at once: two windows of 48 x 48, or 72 of 8 x 8."""


def may_go_in_parts(x: Tensor) -> bool:
    """Whether only the output that x leads to counts: on a CPU, with no derivative and no graph of it."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return on_cpu(x) and not is_transformed()
