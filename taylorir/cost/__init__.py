"""What does it cost? Time, operations and memory of attention and of networks, counted and measured.

Notebooks 05 and 08. It imports attention, networks and rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
