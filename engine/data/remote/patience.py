"""Time limits on a storage's answers. Its client libraries may try for minutes, and hear no Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")
_LISTEN_SECONDS = 0.2


def answered(work: Callable[[], _Answer], seconds: float, stop: threading.Event | None = None) -> _Answer:
    """Return what `work` returns, or raise what it raises, while somebody who has lost patience can go.

    Args:
        work: waits for an answer. It runs in a thread of its own, which is left behind when it takes too long.
        seconds: how long it may take.
        stop: set by others to go earlier.

    Raises:
        TimeoutError: there was no answer in time.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    # A daemon, because the process must not wait for it at its end.
    threading.Thread(target=run, daemon=True, name="storage").start()
    left = seconds
    while not done.wait(min(_LISTEN_SECONDS, left)):
        left -= _LISTEN_SECONDS
        if stop is not None and stop.is_set():
            raise TimeoutError("it was not waited for any longer")
        if left <= 0:
            raise TimeoutError(f"there was no answer within {seconds:,.0f} seconds")
    if errors:
        raise errors[0]
    return answers[0]
