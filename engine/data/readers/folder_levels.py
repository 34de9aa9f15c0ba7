"""Levels of folders: classes below the splits, at least two of them, with no splits inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from pathlib import Path

from engine.data.class_names import printable
from engine.data.readers.boundary import is_folder
from engine.errors import DataError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_EXPECTED = "expected ROOT/train/CLASS/PICTURE with val/, valid/ or test/ beside train/"
_MOST_SHOWN = 5


def explain_missing_train(root: Path) -> None:
    """Refuse a root whose splits lie one level deeper, or are written otherwise; say nothing of any other.

    Raises:
        DataError: says where the splits are.
    """
    if not is_folder(root):
        return
    folders = _folders(root)
    written = [name for name in folders if name.casefold() in {"train", "training"}]
    if written:
        raise DataError(f"{root} holds {_listed(written)}, but no train/; rename it, {_EXPECTED}")
    deeper = [name for name in folders if is_folder(root / name / "train")]
    if len(deeper) == 1:
        raise DataError(f"{root} holds no train/, but {printable(deeper[0])}/ does: set data.root={root / deeper[0]}")
    if deeper:
        raise DataError(
            f"{root}: the splits are at the wrong level, train/ is in each of {_listed(deeper)}. If these are the "
            f"classes, {_EXPECTED}; if they are sets, set data.root to one of them"
        )


def check_levels(class_folder: Path) -> None:
    """Refuse a class whose folder holds splits: are they part of the class, or were they to be kept apart?

    Raises:
        DataError: names them.
    """
    # Only entries that are called so are looked at: a class may hold a million.
    inside = [name for name in sorted(os.listdir(class_folder)) if name.casefold() in _SPLITS]
    inside = [name for name in inside if is_folder(class_folder / name)]
    if inside:
        raise DataError(
            f"{printable(str(class_folder), None)} holds {_listed(inside)}: the splits are at the wrong level, or the "
            f"folder is badly named. All pictures below a class's folder would belong to the class; {_EXPECTED}, or "
            f"rename what is no split"
        )


def check_classes(folder: Path, classes: Mapping[str, Sized]) -> None:
    """Refuse training folders that are no classes.

    Raises:
        DataError: there are fewer than two, or they are called like splits.
    """
    if not classes:
        raise DataError(f"{folder} holds no folders of classes, expected train/CLASS/PICTURE")
    if len(classes) == 1:
        (name,) = classes
        inside = _folders(folder / name) if is_folder(folder / name) else []
        found = f"; it holds {_listed(inside)}" if inside else ""
        raise DataError(
            f"{folder} holds one class only, {printable(name)}, and there is nothing to tell it from{found}. Are the "
            f"classes at the wrong level? {_EXPECTED} and at least two classes"
        )
    if {name.casefold() for name in classes} <= _SPLITS:
        raise DataError(
            f"the folders of {folder} are called {_listed(list(classes))}: the splits are at the wrong level; "
            f"{_EXPECTED}"
        )


def difference(found: set[str], expected: set[str]) -> str:
    """Return in words which names are missing and which are too many."""
    words = []
    for title, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            words.append(f"{title}: {_listed(sorted(names))}")
    return "; ".join(words)


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in entries if entry.is_dir()), key=os.fsencode)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(printable, names[:_MOST_SHOWN])) + more
