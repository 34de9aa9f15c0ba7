"""What is said where Ray ends this process: by whoever holds the private Ray, or by this process itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

_GOES_ON = "(the same command goes on from the newest checkpoint, if there is one)"
FORM = f"local-learning: error: the private Ray is gone: {{}} {_GOES_ON}\n"
OF_A_CLUSTER = f"local-learning: error: the raylet of this node is gone, without which no driver goes on {_GOES_ON}\n"
_STDERR = 2


def say(words: str) -> None:
    """Say it to standard error, past all buffers and locks."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, words.encode())


@contextlib.contextmanager
def standard_error_or(log: IO[bytes]) -> Iterator[int]:
    """Give a descriptor of standard error that a child can take over, or of a file where that is closed."""
    try:
        words = os.dup(_STDERR)
    except OSError:
        words = os.dup(log.fileno())
    try:
        yield words
    finally:
        os.close(words)
