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

ADAPTERS: dict[tuple[str, str], type[Adapter]] = {
    # SwinIR, arXiv 2108.10257
    ("spandrel.architectures.SwinIR", "WindowAttention"): windows.SwinWindows,
    ("spandrel.architectures.SwinIR", "SwinTransformerBlock"): windows.SwinBlock,
    ("spandrel.architectures.SwinIR", "SwinIR"): windows.Padding,
    ("models.network_swinir", "WindowAttention"): windows.SwinWindows,
    ("models.network_swinir", "SwinTransformerBlock"): windows.SwinBlock,
    ("models.network_swinir", "SwinIR"): windows.Padding,
    # Swin2SR, arXiv 2209.11345
    ("spandrel.architectures.Swin2SR", "WindowAttention"): windows.Swin2SRWindows,
    ("spandrel.architectures.Swin2SR", "SwinTransformerBlock"): windows.SwinBlock,
    ("spandrel.architectures.Swin2SR", "Swin2SR"): windows.Padding,
    ("models.network_swin2sr", "WindowAttention"): windows.Swin2SRWindows,
    ("models.network_swin2sr", "SwinTransformerBlock"): windows.SwinBlock,
    ("models.network_swin2sr", "Swin2SR"): windows.Padding,
    ("transformers.models.swin2sr", "Swin2SRSelfAttention"): libraries.HuggingfaceCosines,
    ("transformers.models.swin2sr", "Swin2SRLayer"): libraries.HuggingfaceLayer,
    ("transformers.models.swin2sr", "Swin2SRModel"): libraries.HuggingfacePadding,
    # DRCT, arXiv 2404.00722
    ("spandrel.architectures.DRCT", "WindowAttention"): windows.SwinWindows,
    ("spandrel.architectures.DRCT", "SwinTransformerBlock"): windows.SwinBlock,
    ("spandrel.architectures.DRCT", "DRCT"): windows.Padding,
    # HAT, arXiv 2205.04437
    ("spandrel.architectures.HAT", "WindowAttention"): windows.HATWindows,
    ("spandrel.architectures.HAT", "HAB"): windows.HATBlock,
    ("spandrel.architectures.HAT", "OCAB"): across.HATOverlap,
    ("spandrel.architectures.HAT", "HAT"): windows.HATNetwork,
    # ATD, arXiv 2401.08209
    ("spandrel.architectures.ATD", "WindowAttention"): windows.ATDWindows,
    ("spandrel.architectures.ATD", "ATDTransformerLayer"): windows.HATBlock,
    ("spandrel.architectures.ATD", "ATD"): windows.HATNetwork,
    # DAT, arXiv 2308.03364
    ("spandrel.architectures.DAT", "Spatial_Attention"): windows.DATWindows,
    ("spandrel.architectures.DAT", "Adaptive_Spatial_Attention"): windows.DATBlock,
    ("basicsr.archs.dat_arch", "Spatial_Attention"): windows.DATWindows,
    ("basicsr.archs.dat_arch", "Adaptive_Spatial_Attention"): windows.DATBlock,
    # RGT, arXiv 2303.06373
    ("spandrel.architectures.RGT", "WindowAttention"): windows.DATWindows,
    ("spandrel.architectures.RGT", "L_SA"): windows.DATBlock,
    # CRAFT, arXiv 2308.05022
    ("spandrel.architectures.CRAFT", "Attention_regular"): windows.DATWindows,
    ("spandrel.architectures.CRAFT", "SRWAB"): windows.CRAFTBlock,
    ("spandrel.architectures.CRAFT", "CRAFT"): windows.CRAFTNetwork,
    # GRL, arXiv 2303.00748
    ("spandrel.architectures.GRL", "WindowAttention"): across.GRLWindows,
    ("spandrel.architectures.GRL", "AnchorStripeAttention"): across.GRLStripes,
    ("spandrel.architectures.GRL", "GRL"): across.GRLNetwork,
    # OmniSR, arXiv 2304.10244
    ("spandrel.architectures.OmniSR", "Attention"): windows.OmniSRWindows,
    # SCUNet, arXiv 2203.13278
    ("spandrel.architectures.SCUNet", "WMSA"): windows.SCUNetWindows,
    ("models.network_scunet", "WMSA"): windows.SCUNetWindows,
    # FDAT
    ("spandrel.architectures.FDAT", "FastSpatialWindowAttention"): windows.FDATWindows,
    # global attention: IPT (arXiv 2012.00364), ViT (arXiv 2010.11929), and whoever uses torch's own
    ("torch.nn.modules.activation", "MultiheadAttention"): libraries.TorchMultihead,
    ("torch.nn.modules.transformer", "TransformerEncoderLayer"): libraries.TorchEncoderLayer,
    ("timm.layers.attention", "Attention"): libraries.TimmAttention,
    ("transformers.models.vit", "ViTAttention"): libraries.HuggingfaceAttention,
    # Swin Transformer, arXiv 2103.14030, and its second version, arXiv 2111.09883
    ("timm.models.swin_transformer", "WindowAttention"): libraries.TimmWindows,
    ("timm.models.swin_transformer", "SwinTransformerBlock"): libraries.TimmBlock,
    ("torchvision.models.swin_transformer", "ShiftedWindowAttention"): libraries.TorchvisionWindows,
    ("torchvision.models.swin_transformer", "ShiftedWindowAttentionV2"): libraries.TorchvisionWindowsV2,
    ("transformers.models.swin", "SwinAttention"): libraries.HuggingfaceWindows,
    ("transformers.models.swin", "SwinLayer"): libraries.HuggingfaceLayer,
    ("transformers.models.swinv2", "Swinv2SelfAttention"): libraries.HuggingfaceCosines,
    ("transformers.models.swinv2", "Swinv2Layer"): libraries.HuggingfaceLayer,
}


REASONS: dict[tuple[str, str], str] = {
    ("spandrel.architectures.ATD", "AC_MSA"): "attends within small groups of tokens that are alike",
    (
        "spandrel.architectures.RGT",
        "RG_SA",
    ): "has a few keys that sum up the image, so it is linear in N already",
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
