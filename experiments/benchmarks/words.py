"""Lists of names on the command line of a benchmark, refused before anything is measured if one is unknown."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads a list such as ``resnet32,resnet50``; give it to `argparse` as the type of an argument.

    Args:
        known: the names that there are.
    """

    def read(text: str) -> list[str]:
        names = [word.strip() for word in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"there is no {unknown[0]!r}: give one or several of {', '.join(known)}, with commas between them"
            )
        return names

    return read
