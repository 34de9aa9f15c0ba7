"""Last words of a process that ends on the spot, past all buffers and locks, or that another one says for it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
from collections.abc import Iterator

_STDOUT, _STDERR = 1, 2
_SECONDS_TO_SAY_IT = 1.0

_as_object = threading.Event()


@contextlib.contextmanager
def said_as_object(wanted: bool) -> Iterator[None]:
    """Let last words inside the block be an object of JSON, too, as the last line of stdout."""
    if wanted:
        _as_object.set()
    try:
        yield
    finally:
        _as_object.clear()


def forms(text: str, exit_code: int | None = None) -> list[tuple[int, str]]:
    """Return what is to be written for an error, by the number of the standard stream.

    Args:
        text: the error, in one line.
        exit_code: with which the process ends; None if whoever says it cannot know.
    """
    found = [(_STDERR, f"local-learning: error: {text}\n")]
    if _as_object.is_set():
        values = {"error": text} if exit_code is None else {"error": text, "exit_code": exit_code}
        found.append((_STDOUT, json.dumps(values) + "\n"))
    return found


def say(text: str, exit_code: int) -> None:
    """Say the error with which this process ends now; takes two seconds at most, also where nobody reads it.

    No thread does it: a Python that is about to end starts none, and waits for it without an end.
    """
    for descriptor, line in forms(text, exit_code):
        with contextlib.suppress(OSError):
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            # A pipe that can be written to has room for more than a line.
            if poll.poll(1000 * _SECONDS_TO_SAY_IT):
                os.write(descriptor, line.encode())
