"""Patience with a disk that is full, read-only or away for a while: training goes on, and writing is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.atomic import FREE_SPACE, MAKE_WRITABLE
from engine.errors import NotWritten, RunError

_PAUSE_SECONDS = 1.0
_SECONDS_BETWEEN_TRIES = 30.0


class DiskPatience:
    """Remembers since when what belongs to the record of a run could not be written.

    Args:
        seconds: after which a failure ends the training; 0 lets the first one do so.
        tell: told when something fails, and when it is written again; may not raise.
    """

    def __init__(self, seconds: float, tell: Callable[[str], None]) -> None:
        self._seconds, self._tell = seconds, tell
        self._since: dict[str, float] = {}
        self._tried: dict[str, float] = {}

    def failed(self, what: str, error: RunError, *, waits: bool = False) -> None:
        """Take note of a failure.

        Args:
            what: could not be written or read, such as ``metrics.jsonl``.
            error: why.
            waits: whether nothing goes on meanwhile.

        Raises:
            RunError: ``error``, where patience is at an end or it is not the disk that failed.
        """
        if not isinstance(error, NotWritten):
            raise error
        now = time.monotonic()
        is_first = what not in self._since
        since, self._tried[what] = self._since.setdefault(what, now), now
        if now - since >= self._seconds:
            if is_first:
                raise error
            raise NotWritten(
                f"{error} (none could be written for plan.recovery.checkpoint_patience_seconds={self._seconds:g})"
            ) from error
        if is_first:
            why = str(error).replace(FREE_SPACE, "").replace(MAKE_WRITABLE, "")
            how = "it is waited for" if waits else "training goes on without"
            self._tell(f"{why}; {how}, for {self._seconds:g} s at most; make it writable meanwhile")

    def succeeded(self, what: str) -> None:
        """Take note that something was written."""
        if what in self._since:
            seconds = time.monotonic() - self._since.pop(what)
            self._tell(f"{what}: the disk is back, after {seconds:.0f} s")

    def is_time_for(self, what: str) -> bool:
        """Return whether what has failed is to be tried again."""
        pause = min(_SECONDS_BETWEEN_TRIES, self._seconds / 4)
        return what in self._since and time.monotonic() - self._tried[what] >= pause

    def wait_for(self, what: str, write: Callable[[], object], is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Write what a run cannot end without, as often as it takes.

        Args:
            what: is written.
            write: tries to; raises RunError.
            is_hurried: whether somebody wants to see an end, so that a failure is one.

        Raises:
            RunError: patience is at an end, or somebody is in a hurry.
        """
        while True:
            try:
                write()
                self.succeeded(what)
                return
            except RunError as error:
                if is_hurried():
                    raise
                self.failed(what, error, waits=True)
            time.sleep(_PAUSE_SECONDS)
