"""Which trainings answer the paper's claims, what do they show, and how sure is it?

Notebooks 07, 11 and 12. It imports evaluation, training, report and what these import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
