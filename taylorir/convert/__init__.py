"""Can TaylorShift take the place of softmax in a network of others? Its attention converted, and calibrated.

Notebook 13. It imports attention, networks, evaluation and training. No library of networks is imported:
modules are recognised by the names of their classes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
