"""Which images, from where, and are they the right ones?

Notebook 03. It imports images and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
