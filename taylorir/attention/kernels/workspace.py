"""One buffer that successive chunks share, so that their memory is already in cache (and already mapped)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Memory of the dtype and device of ``like``; each ``take`` overwrites what the last one returned."""

    def __init__(self, like: Tensor):
        self.dtype: torch.dtype = like.dtype
        self._numbers = like.new_empty(0)

    def take(self, *shape: int) -> Tensor:
        """A contiguous tensor of any content."""
        size = math.prod(shape)
        if size > len(self._numbers):
            self._numbers = self._numbers.new_empty(size)
        return self._numbers[:size].view(shape)
