"""What is attention, and what makes it linear in the number of tokens? Softmax, and TaylorShift in its direct
and efficient forms.

Notebooks 01 and 02. It imports no other room; its kernels compute what its definitions say, faster.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
