"""What a process says that ends on the spot, past all buffers and locks, or what another one says for it."""

from __future__ import annotations

import contextlib
import json
import os
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
    """Say the error with which this process ends now; takes a second at most."""
    # Apart, because nobody may read what is said, and then it is waited for without an end.
    saying = threading.Thread(target=_write, args=(forms(text, exit_code),), daemon=True)
    saying.start()
    saying.join(_SECONDS_TO_SAY_IT)


def _write(said: list[tuple[int, str]]) -> None:
    for descriptor, line in said:
        with contextlib.suppress(OSError):
            os.write(descriptor, line.encode())
