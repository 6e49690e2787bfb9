"""Which networks? SwinIR and TaylorSwinIR from one configuration, their windows and positions, conversion,
checkpoints, export.

Notebooks 06 and 13. It imports attention and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
