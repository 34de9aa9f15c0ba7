"""The disks of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.machine import Room


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
