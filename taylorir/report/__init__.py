"""From rows to the tables and figures of the book. It sees data frames and arrays, never torch.

All chapters use it. It imports no other room.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
