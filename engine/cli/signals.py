"""Ends a command when it is told to, whatever it is doing and whatever hangs.

Ctrl-C, SIGTERM and SIGHUP, which a lost terminal sends, are one and the same. Whoever can end well, with a checkpoint
for instance, takes them over (`engine.training.interruption`); everything else ends where it is. Code that is not
Python's own can be deaf to signals for minutes, so a clock runs along, and ends the process when it has run down. What
the process has started ends with it: a private Ray is held by a process that watches this one.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from engine import last_words
from engine.errors import EXIT_INTERRUPTED, Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Of the ten seconds within which everybody shall be gone: for one signal, and from the second one of a training on.
_SECONDS = 8.0
_SECONDS_OF_A_SECOND = 5.5
# As in a training: a terminal that is closed, or a scheduler, says it twice.
_ONE_EVENT_SECONDS = 0.5

_is_whole = threading.Event()


@contextlib.contextmanager
def whole_at_any_moment() -> Iterator[None]:
    """Start the clock with the first signal, whoever takes it over, and end at once with the second one.

    For commands whose results are whole on the disk at any moment of the block.
    """
    _is_whole.set()
    try:
        yield
    finally:
        _is_whole.clear()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal inside the block raise Interrupted, and end the process if that does not end it in seconds.

    Signals can be handled in the main thread only; elsewhere nothing is changed. A signal that the process was started
    to ignore, as with nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    watched = {int(number) for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    left = threading.Event()
    threading.Thread(target=_watch, args=(reading, watched, left), name="clock of interruptions", daemon=True).start()
    for number in watched:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        left.set()
        os.close(writing)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Of a plain KeyboardInterrupt in a text that exec() runs, Python ends with the signal itself.
    raise Interrupted


def _watch(reading: int, watched: set[int], left: threading.Event) -> None:
    """Wait for signals, which arrive here also while the main thread is deaf, and then for the end of the block."""
    seen, patience, latest = 0, _SECONDS, -math.inf
    try:
        # The numbers of signals that came at once are read at once.
        while numbers := os.read(reading, 64):
            for _ in filter(watched.__contains__, numbers):
                if time.monotonic() - latest < _ONE_EVENT_SECONDS:
                    continue
                latest = time.monotonic()
                seen += 1
                in_charge = any(signal.getsignal(number) is _interrupt for number in watched)
                if not (in_charge or seen > 1 or _is_whole.is_set()):
                    patience = _SECONDS_OF_A_SECOND
                    continue
                if _is_whole.is_set() and seen > 1:
                    _end()
                threading.Thread(target=_end_later, args=(left, patience), daemon=True).start()
    finally:
        os.close(reading)


def _end_later(left: threading.Event, seconds: float) -> None:
    if not left.wait(seconds):
        _end()


def _end() -> None:
    last_words.say("interrupted, while something did not answer", EXIT_INTERRUPTED)
    # Nothing else ends a thread that waits outside of Python.
    os._exit(EXIT_INTERRUPTED)
