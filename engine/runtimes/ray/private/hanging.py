"""Processes of a private Ray that are stopped, as by SIGSTOP: whoever asks them waits for ever."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

HANGING_SECONDS = 60.0
"""How long a process of Ray may be stopped, unless a plan says."""

_LOOK_SECONDS = 1.0
# In which one that is let go on shows that it does.
_WAKING_SECONDS = 5.0
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass
class _Stop:
    """A process that is stopped.

    Attributes:
        at: when it was first seen so, as `time.monotonic`.
        clock: the same for people.
        woken: when it was let go on; None before.
    """

    at: float
    clock: str
    woken: float | None = None


class Hanging:
    """Looks for processes that are stopped, and do not go on.

    One that is stopped for too long is let go on (SIGCONT), for Ray ends whoever waits for it when it ends. Only if it
    stays stopped all the same is it ended.

    Args:
        processes: of Ray, by name.
        seconds: after which one that is stopped counts as hanging.
    """

    def __init__(self, processes: Mapping[str, psutil.Process], seconds: float) -> None:
        self._processes, self._seconds = processes, seconds
        self._stops: dict[str, _Stop] = {}
        self._looked = time.monotonic()

    def look(self) -> str | None:
        """Look at all processes, if it is time to; returns which one hangs and since when, once for each time."""
        now = time.monotonic()
        pause = now - self._looked
        if pause < min(_LOOK_SECONDS, self._seconds / 4):
            return None
        self._looked = now
        if pause > self._seconds / 2:
            # This process itself was stopped, and others with it, or it has slept with the machine.
            self._stops.clear()
        return next(filter(None, [self._look_at(*each, now) for each in self._processes.items()]), None)

    def _look_at(self, name: str, process: psutil.Process, now: float) -> str | None:
        if not _is_stopped(process):
            self._stops.pop(name, None)
            return None
        stop = self._stops.setdefault(name, _Stop(now, time.strftime("%H:%M:%S")))
        if stop.woken is not None:
            if now - stop.woken > _WAKING_SECONDS:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return None
        if now - stop.at <= self._seconds:
            return None
        stop.woken = now
        with contextlib.suppress(psutil.Error):
            process.resume()
        return f"Ray's {name}, process {process.pid}, has been stopped since {stop.clock}, for {now - stop.at:.0f} s"


def _is_stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() in _STOPPED
    return False
