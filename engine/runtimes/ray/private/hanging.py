"""Processes of a private Ray that are stopped: let go on, and ended only if they do not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

import psutil

from engine.runtimes.stopped import StoppedProcesses, is_stopped

# In which one that is let go on shows that it does.
_WAKING_SECONDS = 5.0


def processes_of(numbers: Mapping[str, int]) -> dict[str, psutil.Process]:
    """Return processes by name; one that has ended, of which others tell, is left out."""
    found = {}
    for name, number in numbers.items():
        with contextlib.suppress(psutil.Error):
            found[name] = psutil.Process(number)
    return found


def processes_of_session(session: int) -> list[psutil.Process]:
    """Return all processes of a session that are alive."""
    found = []
    for number in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(number) == session:
                process = psutil.Process(number)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


class Hanging:
    """Looks for processes that hang.

    One that is stopped for too long is told to continue (SIGCONT), for Ray ends whoever waits for it when it ends. Only
    if it stays stopped all the same is it ended.

    Args:
        processes: of Ray, by name.
        seconds: after which one that is stopped counts as hanging.
    """

    def __init__(self, processes: Mapping[str, psutil.Process], seconds: float) -> None:
        self._processes, self._stopped = processes, StoppedProcesses[str](seconds)
        self._woken: dict[str, float] = {}

    def look(self) -> str | None:
        """Look at all processes, if it is time to; returns which one hangs and since when, once for each time."""
        now = time.monotonic()
        told = None
        for name in [each for each in self._woken if not is_stopped(self._processes[each])]:
            del self._woken[name]
        for name, what in self._stopped.look(lambda: self._processes).items():
            process, woken = self._processes[name], self._woken.get(name)
            with contextlib.suppress(psutil.Error):
                if woken is None:
                    self._woken[name] = now
                    told = told or f"Ray's {name} hangs: {what}"
                    process.resume()
                elif now - woken > _WAKING_SECONDS:
                    process.kill()
        return told
