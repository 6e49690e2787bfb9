"""The table of families: which module of which library gets which adapter.

A key is the beginning of the name of the Python module and the name of the class, so that no library is
imported. Where authors and other libraries write a family alike, their names stand beside each other.
"""

from __future__ import annotations

from torch import nn

from taylorir.convert import windows
from taylorir.convert.adapted import Adapter

ADAPTERS: dict[tuple[str, str], type[Adapter]] = {
    # SwinIR, arXiv 2108.10257
    ("spandrel.architectures.SwinIR", "WindowAttention"): windows.SwinWindows,
    ("spandrel.architectures.SwinIR", "SwinTransformerBlock"): windows.SwinBlock,
    ("spandrel.architectures.SwinIR", "SwinIR"): windows.Padding,
    ("models.network_swinir", "WindowAttention"): windows.SwinWindows,
    ("models.network_swinir", "SwinTransformerBlock"): windows.SwinBlock,
    ("models.network_swinir", "SwinIR"): windows.Padding,
    # DAT, arXiv 2308.03364
    ("spandrel.architectures.DAT", "Spatial_Attention"): windows.DATWindows,
    ("spandrel.architectures.DAT", "Adaptive_Spatial_Attention"): windows.DATBlock,
    ("basicsr.archs.dat_arch", "Spatial_Attention"): windows.DATWindows,
    ("basicsr.archs.dat_arch", "Adaptive_Spatial_Attention"): windows.DATBlock,
}


def adapter_of(module: nn.Module) -> type[Adapter] | None:
    """The adapter of a module, or None."""
    home = type(module).__module__
    for (prefix, name), adapter in ADAPTERS.items():
        if type(module).__name__ == name and (home == prefix or home.startswith(prefix + ".")):
            return adapter
    return None
