"""Presence of the run folder: it may be moved or deleted while a training writes to it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.atomic import write_error
from engine.errors import RunError


class FolderGone(RunError):
    """A run folder is no longer at its place, which is nothing that passes."""


class Presence:
    """Notices that a run folder is no longer at its place, before anything is written there that makes a new one.

    Args:
        folder: the run folder, which exists.

    Raises:
        NotWritten: its disk does not say so.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._identity = _identity(folder)
        except OSError as error:
            raise write_error(folder, error) from error

    def check(self) -> None:
        """Raise FolderGone if the folder has been moved, deleted or replaced by another."""
        try:
            if _identity(self._folder) == self._identity:
                return
        except OSError:
            # A disk that is away may come back with the folder; the write that follows says so, and is waited for.
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
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
