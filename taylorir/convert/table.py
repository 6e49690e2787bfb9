"""The table of families: which module of which library gets which adapter.

A key is the beginning of the name of the Python module and the name of the class, so that no library is
imported. Where authors write a family as a library does, both names are there.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from taylorir.convert import across, libraries, windows
from taylorir.convert.adapted import Adapter

_Entry = TypeVar("_Entry")


def _written(*homes: str, **entries: _Entry) -> dict[tuple[str, str], _Entry]:
    """The entries of classes, by their names, under each of the modules that they are written in."""
    return {(home, name): entry for home in homes for name, entry in entries.items()}


ADAPTERS: dict[tuple[str, str], type[Adapter]] = {
    # SwinIR, arXiv 2108.10257: as its authors write it, and BasicSR
    **_written(
        *("spandrel.architectures.SwinIR", "models.network_swinir", "basicsr.archs.swinir_arch"),
        WindowAttention=windows.SwinWindows,
        SwinTransformerBlock=windows.SwinBlock,
        SwinIR=windows.Padding,
    ),
    # Swin2SR, arXiv 2209.11345
    **_written(
        *("spandrel.architectures.Swin2SR", "models.network_swin2sr"),
        WindowAttention=windows.Swin2SRWindows,
        SwinTransformerBlock=windows.SwinBlock,
        Swin2SR=windows.Padding,
    ),
    **_written(
        "transformers.models.swin2sr",
        Swin2SRSelfAttention=libraries.HuggingfaceCosines,
        Swin2SRLayer=libraries.HuggingfaceLayer,
        Swin2SRModel=libraries.HuggingfacePadding,
    ),
    # DRCT, arXiv 2404.00722
    **_written(
        *("spandrel.architectures.DRCT", "drct.archs.DRCT_arch"),
        WindowAttention=windows.SwinWindows,
        SwinTransformerBlock=windows.SwinBlock,
        DRCT=windows.Padding,
    ),
    # HAT, arXiv 2205.04437
    **_written(
        *("spandrel.architectures.HAT", "hat.archs.hat_arch"),
        WindowAttention=windows.HATWindows,
        HAB=windows.HATBlock,
        OCAB=across.HATOverlap,
        HAT=windows.HATNetwork,
    ),
    # ATD, arXiv 2401.08209
    **_written(
        *("spandrel.architectures.ATD", "basicsr.archs.atd_arch"),
        WindowAttention=windows.ATDWindows,
        ATDTransformerLayer=windows.HATBlock,
        ATD=windows.HATNetwork,
    ),
    # DAT, arXiv 2308.03364
    **_written(
        *("spandrel.architectures.DAT", "basicsr.archs.dat_arch"),
        Spatial_Attention=windows.DATWindows,
        Adaptive_Spatial_Attention=windows.DATBlock,
    ),
    # RGT, arXiv 2303.06373
    **_written(
        *("spandrel.architectures.RGT", "basicsr.archs.rgt_arch"),
        WindowAttention=windows.DATWindows,
        L_SA=windows.DATBlock,
    ),
    # CRAFT, arXiv 2308.05022
    **_written(
        *("spandrel.architectures.CRAFT", "basicsr.archs.craft_arch"),
        Attention_regular=windows.DATWindows,
        SRWAB=windows.CRAFTBlock,
        CRAFT=windows.CRAFTNetwork,
    ),
    # GRL, arXiv 2303.00748
    **_written(
        *("spandrel.architectures.GRL", "models.common.mixed_attn_block_efficient", "models.networks.grl"),
        WindowAttention=across.GRLWindows,
        AnchorStripeAttention=across.GRLStripes,
        GRL=across.GRLNetwork,
    ),
    # OmniSR, arXiv 2304.10244
    **_written(
        *("spandrel.architectures.OmniSR", "ops.OSA", "components.OmniSR"),
        Attention=windows.OmniSRWindows,
        OSA_Block=windows.OmniSRBlock,
        OmniSR=windows.Padding,
    ),
    # SCUNet, arXiv 2203.13278
    **_written("spandrel.architectures.SCUNet", "models.network_scunet", WMSA=windows.SCUNetWindows),
    # FDAT
    **_written("spandrel.architectures.FDAT", FastSpatialWindowAttention=windows.FDATWindows),
    # global attention: IPT (arXiv 2012.00364), ViT (arXiv 2010.11929), and whoever uses torch's own
    **_written("torch.nn.modules.activation", MultiheadAttention=libraries.TorchMultihead),
    **_written("torch.nn.modules.transformer", TransformerEncoderLayer=libraries.TorchEncoderLayer),
    **_written("timm.layers.attention", Attention=libraries.TimmAttention),
    **_written("transformers.models.vit", ViTAttention=libraries.HuggingfaceAttention),
    # Swin Transformer, arXiv 2103.14030, and its second version, arXiv 2111.09883
    **_written(
        "timm.models.swin_transformer",
        WindowAttention=libraries.TimmWindows,
        SwinTransformerBlock=libraries.TimmBlock,
    ),
    **_written(
        "torchvision.models.swin_transformer",
        ShiftedWindowAttention=libraries.TorchvisionWindows,
        ShiftedWindowAttentionV2=libraries.TorchvisionWindowsV2,
    ),
    **_written(
        "transformers.models.swin",
        SwinAttention=libraries.HuggingfaceWindows,
        SwinLayer=libraries.HuggingfaceLayer,
    ),
    **_written(
        "transformers.models.swinv2",
        Swinv2SelfAttention=libraries.HuggingfaceCosines,
        Swinv2Layer=libraries.HuggingfaceLayer,
    ),
}
"""(module, class) -> adapter. Read it by family: the modules that a family is written in, and its classes."""


REASONS: dict[tuple[str, str], str] = {
    **_written(
        *("spandrel.architectures.ATD", "basicsr.archs.atd_arch"),
        AC_MSA="attends within small groups of tokens that are alike",
    ),
    **_written(
        *("spandrel.architectures.RGT", "basicsr.archs.rgt_arch"),
        RG_SA="has a few keys that sum up the image, so it is linear in N already",
    ),
}
"""Why some attention between tokens has no adapter."""


def adapter_of(module: nn.Module) -> type[Adapter] | None:
    """The adapter of a module, or None."""
    return _of(module, ADAPTERS)


def reason_of(module: nn.Module) -> str | None:
    """Why a module has no adapter, or None."""
    return _of(module, REASONS)


def _of(module: nn.Module, table: dict[tuple[str, str], _Entry]) -> _Entry | None:
    home = type(module).__module__
    for (prefix, name), entry in table.items():
        if type(module).__name__ == name and (home == prefix or home.startswith(prefix + ".")):
            return entry
    return None
