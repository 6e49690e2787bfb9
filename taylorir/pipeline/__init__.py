"""Which notebook has to run, on what, and how? The Snakefile asks; papermill runs.

Behind every chapter. It imports rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
