"""Standard streams that are closed, full, or cannot print every character."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

_DESCRIPTORS = (0, 1, 2)


def prepare() -> None:
    """Give the process the standard streams that it was started without, and let the others say every character.

    A descriptor that is closed, as after ``2>&-``, would be given to the next file that is opened, and whatever is
    then printed would be written into that file. What is lost is remembered in `sys.stdout` or `sys.stderr`: they stay
    None, as Python makes them.
    """
    for descriptor in _DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, and so this one.
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        # Streams that a test or a notebook puts in their place need not be of this kind.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_result(lines: Sequence[str]) -> str | None:
    """Print to standard output; returns why that failed, None if it did not.

    A reader that has left, as in ``... | head -1``, has what it wanted: that is no failure.
    """
    if sys.stdout is None:
        return "it is closed"
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def complain(lines: Sequence[str]) -> None:
    """Print to standard error, if there is one that takes it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(*lines, sep="\n", file=sys.stderr)
            sys.stderr.flush()


def settle() -> None:
    """Drop what no stream took, which Python would try to write once more when it ends, and end with 120."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is not None and not _flushed(stream):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
