"""How far is TaylorShift from softmax, and how exact is it in floating point?

Notebooks 02 and 09. It imports attention and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
