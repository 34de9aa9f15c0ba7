"""Things made for people, such as a picture, that may fail without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.reading import one_line


@contextmanager
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
