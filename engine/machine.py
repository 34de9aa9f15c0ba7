"""The memory and disks of this machine: main memory and shared memory as far as this process may use them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY = "/dev/shm"
_CONTROL_GROUPS = "/sys/fs/cgroup"
# Below it, of version 2 and of version 1: the limit, what is used, and the key of memory.stat for unused file pages.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


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
    for limit_file, used_file, key in _MEMORY_FILES:
        try:
            # A container's limit, which the machine's own numbers do not show.
            limit = int(Path(_CONTROL_GROUPS, limit_file).read_text())
            used = Path(_CONTROL_GROUPS, used_file)
            # Pages of files that were read count as used, but give way to whatever else needs the memory.
            statistics = dict(line.split() for line in used.with_name("memory.stat").read_text().splitlines())
            free = limit - int(used.read_text()) + int(statistics.get(key, 0))
        except (OSError, ValueError):
            continue
        return Room(min(room.total, limit), max(0, min(room.free, free)))
    return room


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
