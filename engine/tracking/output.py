"""Output for people, such as lines on a terminal that is closed: its loss never ends what is told about."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import TextIO

from engine.reading import one_line


class Output(io.TextIOBase):
    r"""A stream that takes everything and raises nothing.

    Args:
        stream: where to write; None for a process that was started without it.

    What cannot be written, because the stream is closed, its reader or its terminal is gone, or its disk is full, is
    dropped. Characters that the stream's encoding lacks are written as escapes such as ``\u2014``.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop what cannot be written; returns the length of the text."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._write_escaped(self._stream, text)
            except (OSError, ValueError):
                pass
        return len(text)

    def _write_escaped(self, stream: TextIO, text: str) -> None:
        encoding = stream.encoding or "ascii"
        with contextlib.suppress(OSError, ValueError):
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        """Hand on what was written, or drop it."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal; what is closed is none."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return (self._stream.encoding if self._stream is not None else None) or "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True


@contextlib.contextmanager
def spared(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Make a by-product inside the block: whatever it raises, but for an interruption, becomes a warning.

    Args:
        what: the by-product, such as ``curves.png``.
        warn: told, in one line, what is left out and why.
    """
    try:
        yield
    # Libraries that draw and encode raise anything, and no mistake of theirs or ours is worth a training.
    except Exception as error:
        warn(f"{what} could not be written ({one_line(error)}); it is left out")
