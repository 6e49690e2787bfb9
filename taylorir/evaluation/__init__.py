"""How good is a network, by the field's protocol, on images of any size in a given memory?

Notebook 03. It imports cost, datasets, images, networks and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
