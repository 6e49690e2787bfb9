"""What makes a number a measurement: who measured it, on what, from which commit; and files that appear
whole.

Every chapter that shows rows uses it. It imports no other room.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
