"""What is a picture, and how far are two apart? Reading and writing, MATLAB's bicubic, luma, degradations,
PSNR, SSIM and NIQE.

Notebook 03. It imports rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
