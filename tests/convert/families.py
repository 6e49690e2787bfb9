"""Small networks of others, one for each family, and which of their modules attend between tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from taylorir.networks import build_model
from tests.random_networks import stirred


@dataclass(frozen=True)
class Family:
    """How a small network is built, and what of it is known by hand.

    Attributes:
        package: that the network is of.
        build: gives the network, of other windows if asked to.
        attends: class names of the modules that attend between tokens, and how many of them there are. An
            anchored stripe takes softmax twice.
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

    @property
    def softmaxes(self) -> int:
        return sum(
            count * (2 if name == "AnchorStripeAttention" else 1) for name, count in self.attends.items()
        )

    def image(self, size: int = 0, batch: int = 2) -> torch.Tensor:
        return torch.rand(batch, 3, *self.sizes[size], dtype=torch.float64)


# --- spandrel -----------------------------------------------------------------------------------------


def swinir(window=4):
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=window, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip


def swin2sr(window=4):
    from spandrel.architectures.Swin2SR import Swin2SR

    return Swin2SR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=window, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip


def drct(window=4):
    from spandrel.architectures.DRCT import DRCT

    return DRCT(
        img_size=16, embed_dim=12, depths=[1], num_heads=[2], window_size=window, mlp_ratio=2, upscale=2,
        gc=4, upsampler="pixelshuffle",
    )  # fmt: skip


def hat(window=4):
    from spandrel.architectures.HAT import HAT

    return HAT(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=window, mlp_ratio=2, upscale=2,
        squeeze_factor=4, num_feat=8,
    )  # fmt: skip


def atd(window=4):
    from spandrel.architectures.ATD import ATD

    return ATD(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=window, category_size=32,
        num_tokens=8, reducted_dim=4, mlp_ratio=2, upscale=2, upsampler="pixelshuffledirect",
    )  # fmt: skip


def dat(window=(4, 8)):
    from spandrel.architectures.DAT import DAT

    return DAT(
        img_size=16, embed_dim=32, split_size=list(window), depth=[4], num_heads=[4], upscale=2,
        expansion_factor=2, upsampler="pixelshuffledirect",
    )  # fmt: skip


def rgt(window=(4, 8)):
    from spandrel.architectures.RGT import RGT

    return RGT(
        img_size=16, embed_dim=32, split_size=list(window), depth=[4], num_heads=[4], upscale=2, mlp_ratio=2
    )


def craft(window=(4, 8)):
    from spandrel.architectures.CRAFT import CRAFT

    return CRAFT(
        window_size=8 if window == (4, 8) else 16, embed_dim=32, depths=[1], num_heads=[4], mlp_ratio=2,
        split_size_0=window[0], split_size_1=window[1], upscale=2,
    )  # fmt: skip


def grl(size=16, window=4):
    from spandrel.architectures.GRL import GRL

    return GRL(
        img_size=size, embed_dim=16, upscale=2, upsampler="pixelshuffledirect", depths=[4], mlp_ratio=2,
        num_heads_window=[2], num_heads_stripe=[2], window_size=window, stripe_size=[4, 8], stripe_shift=True,
        anchor_window_down_factor=2,
    )  # fmt: skip


def omnisr(window=4):
    from spandrel.architectures.OmniSR import OmniSR

    return OmniSR(num_feat=16, block_num=1, res_num=1, window_size=window, pe=True, up_scale=2, bias=True)


def scunet(window=8):
    from spandrel.architectures.SCUNet import SCUNet

    network = SCUNet(config=[2, 1, 1, 1, 1, 1, 1], dim=64, input_resolution=256)
    for block in network.m_down1[:2]:  # its windows are no setting
        attention = block.trans_block.msa
        block.trans_block.msa = type(attention)(32, 32, 32, window, attention.type)
    return nn.Sequential(network.m_head, network.m_down1)  # the rest is the same, and wide


def fdat(window=4):
    from spandrel.architectures.FDAT import FDAT

    return FDAT(
        scale=2,
        embed_dim=16,
        num_groups=1,
        depth_per_group=2,
        num_heads=2,
        window_size=window,
        aim_reduction_ratio=4,
    )


def ipt():
    from spandrel.architectures.IPT import IPT

    return IPT(patch_size=12, n_feats=2, num_heads=2, num_layers=1, scale=[2], no_norm=False)


# --- networks that the table does not convert ---------------------------------------------------------


def own_swinir():
    return build_model("swinir_tiny_x2", window_size=4, embed_dim=12, num_heads=2)


def uformer():
    from spandrel.architectures.Uformer import Uformer

    return Uformer(
        img_size=32, embed_dim=8, depths=[1] * 9, num_heads=[1, 1, 2, 2, 2, 2, 2, 1, 1], win_size=2
    )


def restoreformer():
    from spandrel.architectures.RestoreFormer import RestoreFormer

    return RestoreFormer(
        ch=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(8,), resolution=16, z_channels=32,
        embed_dim=32, n_embed=8, head_size=4,
    )  # fmt: skip


def kbnet():
    from spandrel.architectures.KBNet import KBNet_l

    return KBNet_l(dim=48, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)


def retinexformer():
    from spandrel.architectures.RetinexFormer import RetinexFormer

    return RetinexFormer(n_feat=8, stage=1)


def cidnet():
    from spandrel.architectures.HVICIDNet import HVICIDNet

    return HVICIDNet(channels=[4, 4, 8, 16], heads=[1, 2, 4, 8])


def ditn():
    from spandrel.architectures.DITN import DITN

    return DITN(dim=12, ITL_blocks=1, SAL_blocks=1, UFONE_blocks=1, patch_size=4, upscale=2)


def dctlsa():
    from spandrel.architectures.DCTLSA import DCTLSA

    return DCTLSA(nf=20, upscale=2)


# --- libraries -----------------------------------------------------------------------------------------


def torch_encoder():
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, stride=4), nn.Flatten(2), Turned(), nn.TransformerEncoder(layer, 2)
    )


class Turned(nn.Module):
    """[B, C, N] to [B, N, C]."""

    def forward(self, x):
        return x.mT


def timm_vit():
    import timm

    return timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=4, dynamic_img_size=True
    )


def timm_swin(window=4):
    import timm

    return timm.models.swin_transformer.SwinTransformer(
        img_size=(32, 48), patch_size=2, embed_dim=12, depths=(2, 1), num_heads=(2, 2), num_classes=4,
        window_size=window, always_partition=True, strict_img_size=False,
    )  # fmt: skip


def torchvision_vit():
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 4, 2, 2, 12, 24, num_classes=4)


def torchvision_swin(window=4, block=None):
    from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2, SwinTransformer

    merging = PatchMerging if block is None else PatchMergingV2
    return SwinTransformer(
        [2, 2], 12, [2, 1], [2, 2], [window, window], num_classes=4, block=block, downsample_layer=merging
    )


def torchvision_swin_v2(window=4):
    from torchvision.models.swin_transformer import SwinTransformerBlockV2

    return torchvision_swin(window, SwinTransformerBlockV2)


class LastHidden(nn.Module):
    """What a network of transformers gives, as one tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)[0]


def huggingface_vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=4,
    )
    return LastHidden(ViTModel(config))


def huggingface_swin(window=4):
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=48, patch_size=2, embed_dim=12, depths=[2, 1], num_heads=[2, 2], window_size=window
    )
    return LastHidden(SwinModel(config))


def huggingface_swinv2(window=4):
    from transformers import Swinv2Config, Swinv2Model

    config = Swinv2Config(
        image_size=48, patch_size=2, embed_dim=12, depths=[2, 1], num_heads=[2, 2], window_size=window
    )
    return LastHidden(Swinv2Model(config))


def huggingface_swin2sr(window=4):
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(
        embed_dim=12, depths=[2], num_heads=[2], window_size=window, image_size=16, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip
    return LastHidden(Swin2SRForImageSuperResolution(config))


GRL = {"WindowAttention": 4, "AnchorStripeAttention": 4}

FAMILIES = {
    "SwinIR": Family("spandrel", swinir, {"WindowAttention": 2}, window_size=8),
    "Swin2SR": Family("spandrel", swin2sr, {"WindowAttention": 2}, window_size=8),
    "DRCT": Family("spandrel", drct, {"WindowAttention": 5}, window_size=8),
    "HAT": Family("spandrel", hat, {"WindowAttention": 2, "OCAB": 1}, window_size=8),
    "ATD": Family("spandrel", atd, {"WindowAttention": 2}, window_size=8),
    "DAT": Family("spandrel", dat, {"Spatial_Attention": 4}, sizes=((16, 16), (14, 21)), window_size=(8, 16)),
    "RGT": Family("spandrel", rgt, {"WindowAttention": 4}, sizes=((16, 16), (16, 32)), window_size=(8, 16)),
    "CRAFT": Family("spandrel", craft, {"Attention_regular": 4}, window_size=(8, 16)),
    # its own code makes tables of float32 for images of another size than it was built for
    "GRL": Family("spandrel", lambda window=4: grl(16, window), GRL, sizes=((16, 16),), window_size=8),
    "GRL, wide": Family("spandrel", lambda: grl((16, 24)), GRL, sizes=((16, 24),)),
    "OmniSR": Family("spandrel", omnisr, {"Attention": 2}, window_size=8),
    "SCUNet": Family("spandrel", scunet, {"WMSA": 2}, window_size=4),
    "FDAT": Family("spandrel", fdat, {"FastSpatialWindowAttention": 2}, window_size=8),
    "IPT": Family("spandrel", ipt, {"MultiheadAttention": 3}, sizes=((12, 12),)),
    "torch TransformerEncoder": Family("torch", torch_encoder, {"MultiheadAttention": 2}),
    "timm ViT": Family("timm", timm_vit, {"Attention": 2}),
    "timm Swin": Family("timm", timm_swin, {"WindowAttention": 3}, sizes=((32, 48), (30, 50)), window_size=8),
    "torchvision ViT": Family("torchvision", torchvision_vit, {"MultiheadAttention": 2}, sizes=((16, 16),)),
    "torchvision Swin": Family("torchvision", torchvision_swin, {"ShiftedWindowAttention": 3}, window_size=8),
    "torchvision Swin V2": Family(
        "torchvision", torchvision_swin_v2, {"ShiftedWindowAttentionV2": 3}, window_size=8
    ),
    "transformers ViT": Family("transformers", huggingface_vit, {"ViTAttention": 2}, sizes=((16, 16),)),
    "transformers Swin": Family(
        "transformers", huggingface_swin, {"SwinAttention": 3}, sizes=((48, 48), (40, 56)), window_size=8
    ),
    "transformers Swinv2": Family(
        "transformers",
        huggingface_swinv2,
        {"Swinv2SelfAttention": 3},
        sizes=((48, 48), (40, 56)),
        window_size=8,
    ),
    "transformers Swin2SR": Family(
        "transformers", huggingface_swin2sr, {"Swin2SRSelfAttention": 2}, window_size=8
    ),
}

UNKNOWN = {
    "SwinIR of this project": Family("torch", own_swinir, {}),
    "Uformer": Family("spandrel", uformer, {}, sizes=((32, 32),)),
    "RestoreFormer": Family("spandrel", restoreformer, {}, sizes=((16, 16),)),
    "KBNet": Family("spandrel", kbnet, {}, sizes=((32, 32),)),
    "RetinexFormer": Family("spandrel", retinexformer, {}, sizes=((32, 32),)),
    "HVI-CIDNet": Family("spandrel", cidnet, {}, sizes=((32, 32),)),
    "DITN": Family("spandrel", ditn, {}, sizes=((16, 16),)),
    "DCTLSA": Family("spandrel", dctlsa, {}, sizes=((16, 16),)),
}
