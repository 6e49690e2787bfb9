"""Tiny networks of spandrel, one of each family that files of others are tried with."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn


def _hat() -> nn.Module:
    from spandrel.architectures.HAT import HAT

    return HAT(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2, upscale=2,
        squeeze_factor=4, num_feat=64,
    )  # fmt: skip


def _dat() -> nn.Module:
    from spandrel.architectures.DAT import DAT

    return DAT(
        img_size=16, embed_dim=32, split_size=[4, 8], depth=[4], num_heads=[4], upscale=2,
        expansion_factor=2, upsampler="pixelshuffledirect",
    )  # fmt: skip


def _drct() -> nn.Module:
    from spandrel.architectures.DRCT import DRCT

    return DRCT(
        img_size=16, embed_dim=12, depths=[1], num_heads=[2], window_size=4, mlp_ratio=2, upscale=2, gc=4,
        upsampler="pixelshuffle",
    )  # fmt: skip


def _swin2sr() -> nn.Module:
    from spandrel.architectures.Swin2SR import Swin2SR

    return Swin2SR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip


def _omnisr() -> nn.Module:
    from spandrel.architectures.OmniSR import OmniSR

    return OmniSR(num_feat=16, block_num=1, res_num=1, window_size=8, pe=True, up_scale=2, bias=True)


def _esrgan() -> nn.Module:
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(num_filters=8, num_blocks=1, scale=2)


BUILDERS = {
    "HAT": _hat,
    "DAT": _dat,
    "DRCT": _drct,
    "Swin2SR": _swin2sr,
    "OmniSR": _omnisr,
    "ESRGAN": _esrgan,
}


def foreign_network(family: str) -> nn.Module:
    """A network of spandrel, with weights from a seed; without it the test is skipped."""
    pytest.importorskip("spandrel", reason="spandrel is an optional extra", exc_type=ImportError)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others write is theirs
        return BUILDERS[family]().eval()
