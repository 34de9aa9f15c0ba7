"""Places of which a report is asked for: a run, a comparison, or a search."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunError
from engine.paths import absolute
from engine.reading import naming

_RECIPE = "recipe.json"


@dataclass(frozen=True)
class _Kind:
    """A folder that holds several runs.

    Attributes:
        word: what it is.
        marker: the file that says so.
        document: what was written about all of its runs.
        picture: the same as a picture.
        runs: the folder in it that holds their folders.
    """

    word: str
    marker: str
    document: str
    picture: str
    runs: str


_KINDS = (
    _Kind("comparison", "comparison.json", "comparison.md", "comparison.png", "runs"),
    _Kind("search", "sweep.json", "sweep.md", "sweep.png", "trials"),
)


@dataclass(frozen=True)
class Place:
    """What is reported of one folder.

    Attributes:
        path: the folder.
        word: run, comparison or search.
        document: what was written about several runs together; None of a run.
        picture: the same as a picture; None of a run.
        runs: folders of its runs; of a run, itself.
        empty: names of folders among them in which no training has begun.
    """

    path: Path
    word: str
    document: Path | None
    picture: Path | None
    runs: Sequence[Path]
    empty: Sequence[str]


def place_of(given: str | Path) -> Place:
    """Return what lies at a place; a checkpoint stands for its run.

    Raises:
        RunError: it is no run, comparison or search.
    """
    path = absolute(given, "RUN", RunError)
    if path.parent.name == "checkpoints":
        path = path.parents[1]
    if os.path.lexists(path / _RECIPE):
        return Place(path, "run", None, None, [path], [])
    for kind in _KINDS:
        if os.path.lexists(path / kind.marker):
            names = folders_in(path / kind.runs)
            begun = [name for name in names if os.path.lexists(path / kind.runs / name / _RECIPE)]
            return Place(
                path,
                kind.word,
                path / kind.document,
                path / kind.picture,
                [path / kind.runs / name for name in begun],
                [name for name in names if name not in begun],
            )
    markers = ", ".join(kind.marker for kind in _KINDS)
    raise RunError(
        f"{path}: is no run, comparison or search: there is no {_RECIPE}, {markers} in it; give a folder that train, "
        "compare or sweep has written"
    )


def folders_in(path: Path) -> list[str]:
    """Return the names of the folders in a folder, numbers in them by size; no links, and nothing that is hidden.

    Raises:
        RunError: it may not be read.
    """
    if not path.is_dir() or path.is_symlink():
        return []
    with naming(path, RunError), os.scandir(path) as entries:
        names = [each.name for each in entries if each.is_dir(follow_symlinks=False) and not each.name.startswith(".")]
    return sorted(names, key=_by_number)


def _by_number(name: str) -> tuple[list[int | str], str]:
    # Text and numbers by turns, so that like is compared with like.
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
