"""What an error is, whichever library raised it."""

from __future__ import annotations

import errno

# Of torch's allocator on Linux ("DefaultCPUAllocator: can't allocate memory") and on Windows.
_ALLOCATION_FAILED = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was missing, as Python, numpy, the system, and torch on a CPU and on a GPU say it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, not imported
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_FAILED)
