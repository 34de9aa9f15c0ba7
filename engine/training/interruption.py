"""Lets Ctrl-C, SIGTERM and a lost terminal finish the step that is running; a second signal stops at once.

So does the first one where learners hang: nobody has to wait for what will never come.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_EVENT_SECONDS = 0.5
"""Signals that come closer together than this are one: of a terminal that is closed, or a scheduler, come two."""

_PAUSE_SECONDS = 0.25
# Learners that are waited for and compute for less than this share of so many seconds hang.
_HANGING_SECONDS = 2.5
_HANGING_SHARE = 0.1
# After which the main thread is taken to be deaf. A command has been ended by then, see `engine.cli.signals`.
_DEAF_SECONDS = 7.0


class Interruptible(Protocol):
    """Work that may hang, such as a `Runtime`."""

    def activity(self) -> float | None:
        """Return the seconds that were computed so far; None while nobody is waited for."""

    def abandon(self) -> None:
        """Let what waits fail."""


class Interruption:
    """While entered, remembers the first signal instead of raising.

    Signals can be handled in the main thread only; elsewhere nothing is changed.

    Args:
        work: that is stopped at once if it hangs when the first signal comes.
    """

    def __init__(self, work: Interruptible | None = None) -> None:
        self.requested = False
        self._since = 0.0
        self._work = work
        self._before: dict[signal.Signals, Any] = {}
        self._woken: int | None = None
        self._writing: int | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            if self._work is not None:
                self._listen(self._work)
            for number in SIGNALS:
                # Of a program that shall outlive its terminal, as with nohup.
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _listen(self, work: Interruptible) -> None:
        """Hear of signals also while the main thread, which alone can handle them, waits outside of Python."""
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._woken = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        words = (work, reading, self._woken)
        threading.Thread(target=_stop_if_it_hangs, args=words, name="interruption", daemon=True).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif now - self._since >= ONE_EVENT_SECONDS:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._woken is not None and self._writing is not None:
            signal.set_wakeup_fd(self._woken)
            os.close(self._writing)


def _stop_if_it_hangs(work: Interruptible, reading: int, onward: int) -> None:
    """Read the numbers of signals, hand them on to whoever listened before, and give up work that hangs after one."""
    patience: _Patience | _Deafness | None = None
    # Not select.select, which takes no descriptors from 1,024 on.
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while True:
        if poll.poll(None if patience is None else _PAUSE_SECONDS * 1000):
            numbers = os.read(reading, 64)
            if not numbers:
                os.close(reading)
                return
            if onward >= 0:
                with contextlib.suppress(OSError):
                    os.write(onward, numbers)
            if patience is None and any(number in SIGNALS for number in numbers):
                patience = _Patience(work)
        elif patience is not None and patience.is_over():
            os.kill(os.getpid(), signal.SIGINT)
            patience = _Deafness(work)


class _Patience:
    """Lasts for as long as learners compute, or are not waited for, and a little longer."""

    def __init__(self, work: Interruptible) -> None:
        self._work = work
        self._since, self._before = time.monotonic(), work.activity()

    def is_over(self) -> bool:
        now, seconds = time.monotonic(), self._work.activity()
        if seconds is None or self._before is None or seconds - self._before > _HANGING_SHARE * _HANGING_SECONDS:
            self._since, self._before = now, seconds
        return now - self._since > _HANGING_SECONDS


class _Deafness:
    """Gives the work up, once, if it has not been left some seconds after the second signal."""

    def __init__(self, work: Interruptible) -> None:
        self._work: Interruptible | None = work
        self._since = time.monotonic()

    def is_over(self) -> bool:
        if self._work is not None and time.monotonic() - self._since > _DEAF_SECONDS:
            self._work.abandon()
            self._work = None
        return False
