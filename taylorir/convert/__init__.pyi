from .conversion import taylorize as taylorize
