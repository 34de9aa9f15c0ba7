"""The memory and disks of this machine: main memory and shared memory as far as this process may use them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Room:
    """Some memory or disk, in bytes."""

    total: int
    free: int


def shared_memory() -> Room:
    """Return what a private Ray's object store can take: shared memory, or main memory where there is none."""
    if not os.path.isdir(_SHARED_MEMORY):
        return main_memory()
    usage = shutil.disk_usage(_SHARED_MEMORY)
    return Room(usage.total, usage.free)


def main_memory() -> Room:
    """Return the main memory, as far as this process may use it."""
    import psutil

    memory = psutil.virtual_memory()
    room = Room(memory.total, memory.available)
    try:
        # A container's limit, which the machine's own numbers do not show.
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return room
    return Room(min(room.total, limit), max(0, min(room.free, limit - used)))


def disk(folder: Path) -> Room:
    """Return the disk that a folder is on, or would be on if it were made."""
    usage = shutil.disk_usage(existing(folder))
    return Room(usage.total, usage.free)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
