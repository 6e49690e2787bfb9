"""TaylorShift attention in SwinIR: a companion to *A Low-Resolution Image is Worth 1x1 Words*."""

__version__ = "0.1.0"
