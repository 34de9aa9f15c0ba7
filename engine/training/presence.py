"""Presence of the run folder: it may be moved or deleted while a training writes to it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.errors import RunError


class FolderGone(RunError):
    """A run folder is no longer at its place, which is nothing that passes."""


class Presence:
    """Notices that a run folder is no longer at its place, before anything is written there that makes a new one.

    Args:
        folder: the run folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity = _identity(folder)

    def check(self) -> None:
        """Raise FolderGone if the folder has been moved, deleted or replaced by another."""
        if _identity(self._folder) == self._identity:
            return
        # What a write in the same moment made anew; folders with anything in them stay.
        for made in (self._folder / "checkpoints", self._folder):
            with contextlib.suppress(OSError):
                made.rmdir()
        raise FolderGone(
            f"{self._folder}: this run folder was moved or deleted while it was trained in; if it was moved, go on "
            "from it by giving its new place as --run-dir; otherwise the same command starts the run afresh"
        )


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
