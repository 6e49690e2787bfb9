"""TaylorShift attention in SwinIR: a companion to *A Low-Resolution Image is Worth 1x1 Words*.

What most people want is here; the rest is in the rooms, one for each question. Nothing is imported before it
is used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)
