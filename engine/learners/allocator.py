"""Allocator: what becomes of the main memory that a training step frees.

glibc returns large blocks to the system as soon as they are free, and the next step takes them again: each page of
4 KiB costs a page fault of about 2 microseconds, with the saved activations of a step many times over a tenth of its
time. A process that trains keeps them instead, so it goes on holding what it held at its peak.
"""

from __future__ import annotations

import ctypes
import os
import platform

# From malloc.h: above which size blocks are mapped each for itself, and how much may be free at the heap's end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# Older versions of glibc refuse more than half of a thread's heap.
_LARGEST_BLOCKS = (2**30, 2**25)

_ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> None:
    """Let this process keep what it frees, from now on and for all threads.

    It does not where another allocator may be at work, nor where the user has set this one by its environment.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _ENVIRONMENT):
        return
    library = ctypes.CDLL(None)
    if any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS):
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def give_back_freed_memory() -> None:
    """Return to the system what is free now."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
