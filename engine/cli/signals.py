"""How does a command end when it is interrupted, whatever it is doing and whatever hangs?

Ctrl-C, SIGTERM and SIGHUP, which a lost terminal sends, are one and the same. Whoever can end well, with a checkpoint
for instance, takes them over (`engine.training.interruption`); everything else ends where it is. Code that is not
Python's own can be deaf to signals for minutes, so a clock runs along, and ends the process when it has run down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from engine.cli.words import PROGRAM
from engine.errors import EXIT_INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STDERR = 2
# Of the ten seconds within which everybody shall be gone: for one signal, and from the second one of a training on.
_SECONDS = 8.0
_SECONDS_OF_A_SECOND = 5.5


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal inside the block raise KeyboardInterrupt, and end the process if that does not end it in seconds.

    Signals can be handled in the main thread only; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    left = threading.Event()
    threading.Thread(target=_watch, args=(reading, left), name="clock of interruptions", daemon=True).start()
    for number in SIGNALS:
        # Of a program that shall outlive its terminal, as with nohup.
        if before[number] != signal.SIG_IGN:
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
    raise KeyboardInterrupt


def _watch(reading: int, left: threading.Event) -> None:
    """Wait for signals, which arrive here also while the main thread is deaf, and then for the end of the block."""
    seen = 0
    try:
        # The numbers of signals that came at once are read at once.
        while numbers := os.read(reading, 64):
            for _ in filter(SIGNALS.__contains__, numbers):
                seen += 1
                in_charge = any(signal.getsignal(number) is _interrupt for number in SIGNALS)
                if in_charge or seen > 1:
                    if not left.wait(_SECONDS if seen == 1 else _SECONDS_OF_A_SECOND):
                        _end()
                    return
    finally:
        os.close(reading)


def _end() -> None:
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{PROGRAM}: error: interrupted, while something did not answer\n".encode())
    # Nothing else ends a thread that waits outside of Python; what was started ends with this process.
    os._exit(EXIT_INTERRUPTED)
