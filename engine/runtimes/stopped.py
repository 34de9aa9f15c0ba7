"""Processes of this machine that are stopped, as by SIGSTOP: whoever waits for one of them waits for ever."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil

STOPPED_SECONDS = 60.0
"""How long a process may be stopped, unless a plan says."""

_LOOK_SECONDS = 1.0

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class _Since:
    """When a process was first seen to be stopped: as `time.monotonic`, and for people."""

    seconds: float
    clock: str


class StoppedProcesses(Generic[Key]):
    """Looks for processes that are stopped, and do not go on.

    Args:
        seconds: after which one that is stopped counts as hanging.
    """

    def __init__(self, seconds: float = STOPPED_SECONDS) -> None:
        self._seconds = seconds
        self._since: dict[tuple[Key, int], _Since] = {}
        self._looked = time.monotonic()

    def look(self, find: Callable[[], Mapping[Key, psutil.Process]]) -> dict[Key, str]:
        """Look at processes, if it is time to.

        Args:
            find: finds them, by whatever they are known by.

        Returns:
            those that hang, with since when, such as ``process 4711 has been stopped since 14:31:05, for 61 s``.
        """
        now = time.monotonic()
        pause = now - self._looked
        if pause < min(_LOOK_SECONDS, self._seconds / 4):
            return {}
        self._looked = now
        before = self._since if pause <= self._seconds / 2 else {}
        # After a pause this process itself was stopped, and others with it, or it has slept with the machine.
        stopped = {key: process for key, process in find().items() if is_stopped(process)}
        self._since = {
            (key, process.pid): before.get((key, process.pid)) or _Since(now, time.strftime("%H:%M:%S"))
            for key, process in stopped.items()
        }
        found = {}
        for key, process in stopped.items():
            since = self._since[key, process.pid]
            if (seconds := now - since.seconds) > self._seconds:
                found[key] = f"process {process.pid} has been stopped since {since.clock}, for {seconds:.0f} s"
        return found


def is_stopped(process: psutil.Process) -> bool:
    """Return whether a process is stopped at this moment; one that is gone is not, nor is one in a debugger."""
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False
