"""What upscaling one picture holds from the file to the file, and whether that is allowed.

The bytes a pixel are measured, each in a fresh process; ``tests/evaluation/test_promise.py`` measures again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from taylorir.evaluation.memory_limit import available_memory, give_back_freed, parse_memory, resident_memory

READING = 31  # bytes a pixel at most, of 16-bit RGBA; JPEG takes half
_BLEEDING = (576, 80)  # side of what bleed_colours fills at once, and bytes for each of its pixels
_RESIZING = (2_000_000, 72)  # values that imresize makes at once, and bytes for each
_WEBP = 50  # bytes a pixel: lossless WebP keeps tables many times as large as the picture
_PILLOW = 4  # bytes a pixel of its copy of two and three channels; one and four it takes as they are
_CODE = 8 * 2**20  # of the libraries of the formats, which are loaded at first use


@dataclass(frozen=True)
class Promise:
    """A bound on what the process holds.

    Attributes:
        before: bytes that it held before the picture.
        limit: bytes that it may hold in all.
        given: whether the user gave the bound; else it is what the machine has.
    """

    before: int
    limit: int
    given: bool

    @classmethod
    def for_picture(cls, model: nn.Module | str, memory: int | str | None) -> Promise:
        """Look at what is held now. A bound for a GPU says nothing of this process."""
        give_back_freed()
        before = resident_memory() + _CODE
        on_cpu = isinstance(model, str) or next((p.device.type for p in model.parameters()), "cpu") == "cpu"
        if memory is not None and on_cpu:
            return cls(before, parse_memory(memory), True)
        return cls(before, before + available_memory(), False)

    def check(self, beside: int, what: str) -> None:
        """Refuse what needs more.

        Args:
            beside: bytes that will be held beside what there was before.
            what: for the message.

        Raises:
            ValueError: it is too much; how much is needed, and how much there is.
        """
        if self.before + beside > self.limit:
            needed, limit = (self.before + beside) / 2**20, self.limit / 2**20
            raise ValueError(
                f"memory is too small: {what} needs about {needed:,.0f} MiB in all, "
                f"{limit:,.0f} MiB are {'allowed' if self.given else 'there'}"
            )


def held_for(pixels: np.ndarray, upscale: int, suffix: str, *, bicubic: bool) -> int:
    """The most bytes that a picture, its result and what makes it hold at once, tiles of a network aside.

    Args:
        pixels: of the picture, ``[H, W, C]``.
        upscale: s.
        suffix: of the result, in lower case.
        bicubic: whether the colours are upscaled by it.
    """
    height, width, channels = pixels.shape
    area, item, transparent = height * width, pixels.itemsize, channels in (2, 4)
    picture = area * item * (channels + 3)  # and its colours as the network sees them
    result = area * upscale**2 * item * channels
    side, each = _BLEEDING
    bleeding = picture + each * min(height, side) * min(width, side) if transparent else 0
    resized = 3 if bicubic else int(transparent)  # channels that imresize makes at once
    values, each = _RESIZING
    upscaled = area * upscale**2 * resized
    resizing = result + picture + upscaled * item * (1 + 1 / upscale) + each * min(values, upscaled)
    writing = result
    if suffix == ".webp":
        writing += _WEBP * area * upscale**2
    elif item == 1 and channels in (2, 3):
        writing += _PILLOW * area * upscale**2
    return int(max(bleeding, result + picture, resizing if resized else 0, writing))
