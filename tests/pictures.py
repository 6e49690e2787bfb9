"""Pictures for tests."""

from __future__ import annotations

import numpy as np


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """8-bit values at random, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
