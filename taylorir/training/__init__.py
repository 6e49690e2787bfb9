"""How is a network trained so that the run can be repeated, stopped and resumed?

Notebook 04. It imports datasets, images, networks and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
