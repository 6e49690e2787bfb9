"""Which pixels does the network look at?

Notebook 10. It imports evaluation, datasets, images, networks and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
