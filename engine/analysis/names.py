"""Names of runs and networks in tables and pictures, and the folder of what is found of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.errors import InputError, RunError
from engine.paths import absolute

ANALYSIS_FOLDER = "analysis"
"""In a run folder: what was found of the run."""

TOGETHER = "together"
"""In the analysis folder of the first run: what was found of several together."""

LONGEST_LABEL = 32
"""Letters of a name in a picture, at most, unless two names would become one."""


def folder_together(own: Path, count: int, to: str | Path | None) -> Path:
    """Return the folder for what is found of several runs together.

    Args:
        own: the analysis folder of the first.
        count: how many were given.
        to: what the user wants in its place.

    Raises:
        InputError: there is one run only, but ``to`` is given; RunError: it is no path.
    """
    if to is None:
        return own / TOGETHER
    if count == 1:
        raise InputError(f"--to {to}: is for several runs together, but one is given; its files go to {own}")
    return absolute(to, "--to", RunError)


def distinct_ends(paths: Sequence[Path]) -> list[str]:
    """Return for each path its last part, with the folders above where other paths end alike; equal ones for equal."""
    return [_end(path, [other for other in paths if other != path]) for path in paths]


def _end(path: Path, others: Sequence[Path]) -> str:
    """Return the shortest end of a path that none of the others has."""
    counts = range(1, len(path.parts) + 1)
    return next(
        str(Path(*path.parts[-count:]))
        for count in counts
        if all(other.parts[-count:] != path.parts[-count:] for other in others)
    )


def shortened(names: Sequence[str]) -> list[str]:
    """Return names of at most `LONGEST_LABEL` letters, their middle left out; of more where two would become one.

    Args:
        names: different ones; the beginning says what a run is, the end which of its seeds and networks.
    """
    letters = LONGEST_LABEL
    while len(set(found := [_without_middle(name, letters) for name in names])) < len(set(names)):
        letters += 4
    return found


def _without_middle(name: str, letters: int) -> str:
    if len(name) <= letters:
        return name
    end = letters // 2
    return f"{name[: letters - end - 1]}…{name[-end:]}"
