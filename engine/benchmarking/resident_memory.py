"""A probe of the main memory that a process held at most, and the allocator's settings that make it tell.

glibc's heap keeps and divides what is freed, so that resident memory says little of what training needs, unless large
blocks are mapped each for itself. That makes steps slower, so it is for a run that measures memory and nothing else.
"""

from __future__ import annotations

from pathlib import Path

PINNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
"""Environment of a process whose blocks of 1 MiB and more are mapped, and given back as soon as they are freed."""

_RESET_PEAK = "5"  # As in proc(5): resets the peak of resident memory, nothing else.


def resident_bytes(process: int) -> int | None:
    """Return what a process holds in main memory now; None where this machine does not tell."""
    return _status(process, "VmRSS")


def peak_bytes(process: int) -> int | None:
    """Return what it held at most since `reset_peak`; None where this machine does not tell."""
    return _status(process, "VmHWM")


def reset_peak(process: int) -> bool:
    """Let the peak of a process begin anew; returns whether that could be done."""
    try:
        Path(f"/proc/{process}/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status(process: int, name: str) -> int | None:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
