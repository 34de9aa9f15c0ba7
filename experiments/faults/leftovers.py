"""Leftovers of a command: processes, files in shared memory, folders of a Ray."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
_PAUSE_SECONDS = 0.1


class Leftovers:
    """Watches a command while it runs, to know afterwards what was its own.

    Args:
        process_id: of the command, which is the first of a session.
        temporary: the folder that it has for temporary files, and nobody else.
    """

    def __init__(self, process_id: int, temporary: Path) -> None:
        self._command, self._temporary = process_id, temporary
        self._sessions = {process_id}
        self._shared = set(os.listdir(SHARED_MEMORY))

    def look(self) -> None:
        """Take note of the sessions of all processes below the command: Ray's have one of their own."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._command).children(recursive=True):
                with contextlib.suppress(OSError):
                    self._sessions.add(os.getsid(child.pid))

    def processes(self) -> list[psutil.Process]:
        """Return those of the command's sessions that live, itself among them."""
        found = []
        for number in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(number) in self._sessions and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
                    found.append(psutil.Process(number))
        return found

    def after(self, seconds: float) -> list[str]:
        """Return in words what is left of the command; it has so many seconds to go."""
        deadline = time.monotonic() + seconds
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        return found

    def _found(self) -> list[str]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(f"process {process.pid} {process.name()}")
        folders = self._temporary.glob("local_learning_ray_*")
        found += [f"folder {folder.name}" for folder in folders]
        new = set(os.listdir(SHARED_MEMORY)) - self._shared
        return found + [f"{SHARED_MEMORY / name}" for name in sorted(new - _used(new))] if new else found

    def end(self) -> None:
        """End all processes of the command by force."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def _used(names: set[str]) -> set[str]:
    """Return those of some files in shared memory that a living process holds: they may be somebody else's."""
    used = set()
    for number in psutil.pids():
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{number}/maps").read_text()
            used |= {name for name in names if str(SHARED_MEMORY / name) in maps}
            for link in os.scandir(f"/proc/{number}/fd"):
                with contextlib.suppress(OSError):
                    used |= {Path(os.readlink(link.path)).name} & names
    return used
