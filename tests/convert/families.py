"""Small networks of others, one for each family, and which of their modules attend between tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests.random_networks import stirred


@dataclass(frozen=True)
class Family:
    """How a small network is built, and what of it is known by hand.

    Attributes:
        package: that the network is of.
        build: gives the network, of other windows if asked to.
        attends: class names of the modules that attend between tokens, and how many of them there are.
        sizes: (height, width) of images that it takes.
        window_size: a new window that it can take, or None.
    """

    package: str
    build: Callable[..., nn.Module]
    attends: dict[str, int]
    sizes: tuple[tuple[int, int], ...] = ((16, 24), (24, 16))
    window_size: int | tuple[int, int] | None = None

    def network(self, *window: int | tuple[int, int]) -> nn.Module:
        """The network in float64, with weights that make its parts matter."""
        pytest.importorskip(self.package, reason=f"{self.package} is an optional extra")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what others write is theirs
            return stirred(self.build(*window)).double().eval()

    def image(self, size: int = 0, batch: int = 2) -> torch.Tensor:
        return torch.rand(batch, 3, *self.sizes[size], dtype=torch.float64)


def swinir(window=4):
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=window, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip


def dat(window=(4, 8)):
    from spandrel.architectures.DAT import DAT

    return DAT(
        img_size=16,
        embed_dim=32,
        split_size=list(window),
        depth=[4],
        num_heads=[4],
        upsampler="pixelshuffledirect",
    )


FAMILIES = {
    "SwinIR": Family("spandrel", swinir, {"WindowAttention": 2}, window_size=8),
    "DAT": Family("spandrel", dat, {"Spatial_Attention": 4}, sizes=((16, 16), (14, 21)), window_size=(8, 16)),
}
