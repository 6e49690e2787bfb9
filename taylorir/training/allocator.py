"""The C library's memory, kept from one step to the next."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt
LARGEST_PIECE = 32 << 20  # beyond it glibc asks the system each time, whatever it is told
KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed, in place of giving it back and asking for it anew.

    A step of training frees and takes the same tensors again and again; each page that comes anew from the
    system is cleared and entered into the process's tables first. For a program that does nothing else: it is
    a setting of the whole process. What a process holds at its peak does not grow by it.

    Returns:
        Whether it was set: on Linux with glibc, unless a variable of the environment (``MALLOC_*``,
        ``GLIBC_TUNABLES``) or another allocator (``LD_PRELOAD``) says what memory is to do.
    """
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system, another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_PIECE)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
