"""How does a command end in time when it is told to, whatever hangs?"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from engine.cli.words import PROGRAM
from engine.errors import EXIT_INTERRUPTED, Interrupted

PATIENCE_SECONDS = 8.0
"""How long a command may take to end by itself after the first signal that tells it to."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ending_in_time(as_json: bool, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Run a block that may be interrupted; it ends with exit code 130 within a time, or at once at the second signal.

    Signals are noticed by a thread, so that it does not matter what the main thread waits for. What the command has
    started is ended with it. It is for commands whose results are whole on the disk at any moment. What a signal means
    to the block is the block's; unless it says otherwise, each raises Interrupted.

    Args:
        as_json: whether an object with the exit code is printed as the last line of stdout.
        patience_seconds: how long the block may take from the first signal on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _interrupt)
    watched = {int(number) for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    earlier = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    told = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ours, watched, told, as_json, patience_seconds), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        theirs.close()
        watcher.join()
        ours.close()
        for number, handler in before.items():
            if number in watched:
                signal.signal(number, handler)
        if told.is_set():
            # What is left would take down large libraries one by one, for seconds.
            atexit.register(_leave)


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _watch(
    signals: socket.socket, watched: set[int], told: threading.Event, as_json: bool, patience_seconds: float
) -> None:
    until = None
    while True:
        try:
            signals.settimeout(None if until is None else max(until - time.monotonic(), 0.001))
            content = signals.recv(1)
        except TimeoutError:
            break
        if not content:
            return
        if content[0] not in watched:
            continue
        if until is not None:
            break
        told.set()
        until = time.monotonic() + patience_seconds
    _end(as_json)


def _end(as_json: bool) -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    # Apart, because nobody may read what is said, and then it is waited for without an end.
    saying = threading.Thread(target=_say, args=(as_json,), daemon=True)
    saying.start()
    saying.join(timeout=1.0)
    os._exit(EXIT_INTERRUPTED)


def _say(as_json: bool) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{PROGRAM}: error: interrupted\n".encode())
    if as_json:
        with contextlib.suppress(OSError):
            os.write(1, (json.dumps({"error": "interrupted", "exit_code": EXIT_INTERRUPTED}) + "\n").encode())
