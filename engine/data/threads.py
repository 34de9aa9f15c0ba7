"""How many threads may read and decode?"""

from __future__ import annotations

import os

_MOST = 16


def num_threads() -> int:
    """Return the cores that this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST, len(os.sched_getaffinity(0)))
    return min(_MOST, os.cpu_count() or 1)
