"""The command ``taylorir``: each answer of the library for one line in a shell.

It imports any room; no room imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
