"""How are pictures read from folders: train/CLASS/picture, and val/, valid/ or test/ beside it?

Three layouts are understood: one folder per class; Tiny ImageNet as published (`train/CLASS/images/`, a flat `val/`
with `val_annotations.txt`); and its re-sorted copies. The order of the images is (class, file name) by byte values.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np

from engine.data.checks import missing_set
from engine.data.parts import EncodedPart, Found, Loaded, Picture
from engine.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_VALIDATION_FOLDERS = ("val", "valid", "validation")
_ANNOTATIONS = "val_annotations.txt"
_CLASS_IDS = "wnids.txt"
_CLASS_WORDS = "words.txt"

Classes = dict[str, list[str]]
"""Paths of the pictures by class, both in byte order."""


def find_folder(root: Path) -> Found:
    """Find the pictures of every split.

    Raises:
        DataError: a folder is missing, a class is empty, or the classes of the splits differ.
    """
    if not (root / "train").is_dir():
        raise missing_set("image folders", root, ["train/CLASS/PICTURE with val/, valid/ or test/ beside it"], False)
    train = _classes(root / "train")
    if not train:
        raise DataError(f"{root / 'train'} holds no folders of classes, expected train/CLASS/PICTURE")
    _check_ids(root, train)
    splits = {"train": train}
    validation = _validation(root, train)
    test = _classes(root / "test") if (root / "test").is_dir() else {}
    if validation is not None and not set(test) & set(train):
        # A test folder that shares no class with the training is one without labels, as Tiny ImageNet's.
        splits["test"] = validation
    elif test:
        if validation is not None:
            splits["validation"] = validation
        splits["test"] = _match(root / "test", test, train)
    else:
        raise DataError(f"{root} holds train/ only, expected val/, valid/ or test/ with the same classes beside it")
    described = [root / name for name in (_CLASS_WORDS,) if (root / _CLASS_IDS).is_file() and (root / name).is_file()]
    files = tuple(path for classes in splits.values() for paths in classes.values() for path in paths)
    return Found(
        root=str(root),
        files=files + tuple(map(str, described)),
        load=lambda: Loaded(_names(described, train), {split: _part(classes) for split, classes in splits.items()}),
        num_pictures=len(files),
    )


def _classes(folder: Path) -> Classes:
    """Return the pictures of each class folder. Raises DataError for an empty class or one that is there twice."""
    found: Classes = {}
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name)), key=os.fsencode)
    seen: dict[str, str] = {}
    for name in names:
        same = unicodedata.normalize("NFC", name).casefold()
        if same in seen:
            raise DataError(
                f"{folder}: {seen[same]} and {name} look like one class in two folders; merge or rename them"
            )
        seen[same] = name
    for name in names:
        inside = folder / name / "images"
        found[name] = _pictures(folder / name) or (_pictures(inside) if inside.is_dir() else [])
        if not found[name]:
            raise DataError(
                f"{folder / name} holds no pictures, expected at least one ({', '.join(EXTENSIONS)}); "
                f"remove the empty class or fill it"
            )
    return found


def _pictures(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_picture(entry.name)]
    return [os.path.join(folder, name) for name in sorted(names, key=os.fsencode)]


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _check_ids(root: Path, train: Classes) -> None:
    """Compare the class folders with Tiny ImageNet's list, when there is one."""
    listed = root / _CLASS_IDS
    if listed.is_file():
        expected = set(listed.read_text().split())
        if set(train) != expected:
            raise DataError(f"{root / 'train'} and {listed} disagree: {_difference(set(train), expected)}")


def _difference(found: set[str], expected: set[str]) -> str:
    words = []
    for title, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            shown = sorted(names)
            words.append(f"{title}: {', '.join(shown[:5])}{f' and {len(shown) - 5} more' if len(shown) > 5 else ''}")
    return "; ".join(words)


def _match(folder: Path, found: Classes, train: Classes) -> Classes:
    if set(found) != set(train):
        raise DataError(
            f"the classes of {folder} ({len(found)}) differ from those of train ({len(train)}): "
            f"{_difference(set(found), set(train))}; both need the same folders"
        )
    return found


def _validation(root: Path, train: Classes) -> Classes | None:
    folders = [root / name for name in _VALIDATION_FOLDERS if (root / name).is_dir()]
    if not folders:
        return None
    if len(folders) > 1:
        raise DataError(f"{root} holds {' and '.join(folder.name for folder in folders)}, expected one of them")
    folder = folders[0]
    if (folder / _ANNOTATIONS).is_file() and (folder / "images").is_dir():
        return _match(folder, _annotated(folder), train)
    found = _classes(folder)
    if not found and _pictures(folder):
        raise DataError(
            f"{folder} is flat: its pictures carry no class. Expected {folder.name}/CLASS/PICTURE, as in train. "
            f"ImageNet's original validation archive is like this: sort it with the ground truth of the development kit"
        )
    return _match(folder, found, train)


def _annotated(folder: Path) -> Classes:
    """Return Tiny ImageNet's flat validation pictures by class, as its annotations say."""
    found: Classes = {}
    listed = folder / _ANNOTATIONS
    for number, line in enumerate(listed.read_text().splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) < 2:
            raise DataError(f"{listed} line {number}: found {line!r}, expected FILE<tab>CLASS<tab>...")
        path = folder / "images" / columns[0]
        if not path.is_file():
            raise DataError(f"{listed} line {number} names {path}, which is missing: the copy is incomplete")
        found.setdefault(columns[1], []).append(str(path))
    return {name: sorted(found[name], key=os.fsencode) for name in sorted(found, key=os.fsencode)}


def _names(described: list[Path], train: Classes) -> tuple[str, ...]:
    """Return the names of the folders, or what Tiny ImageNet's list of words calls them."""
    words: dict[str, str] = {}
    for path in described:
        for line in path.read_text().splitlines():
            identity, _, name = line.partition("\t")
            words[identity] = name.strip()
    return tuple(words.get(name, name) for name in train)


def _part(classes: Classes) -> EncodedPart:
    paths = [path for pictures in classes.values() for path in pictures]
    counts = [len(pictures) for pictures in classes.values()]
    return EncodedPart(
        labels=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        pictures=lambda: (Picture(path) for path in paths),
        picture=lambda position: Picture(paths[position]),
    )
