"""Reader of folders of pictures: train/CLASS/picture, and val/, valid/ or test/ beside it.

Three layouts are understood: one folder per class, in which all folders below belong to the class, as torchvision's
ImageFolder reads them; Tiny ImageNet as published (a flat `val/` with `val_annotations.txt`); and its re-sorted copies.
The order of the images is (class, folder, file name) by the bytes of their normal form.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from engine.data.class_names import byte_order, look_alike, printable, readable
from engine.data.inventory import Leavings, Survey
from engine.data.parts import EncodedPart, Found, Loaded, Picture
from engine.data.pictures.picture_files import ENDINGS
from engine.data.readers.boundary import finder, is_folder
from engine.data.readers.completeness import missing_set
from engine.data.readers.folder_levels import check_classes, check_levels, difference, explain_missing_train
from engine.data.readers.text_lines import text_lines
from engine.data.readers.walking import HIDDEN, Walk
from engine.errors import DataError

_VALIDATION_FOLDERS = ("val", "valid", "validation")
_ANNOTATIONS = "val_annotations.txt"
_CLASS_IDS = "wnids.txt"
_CLASS_WORDS = "words.txt"
_STRAY = "pictures outside of the folders of classes"
_WITH_ITS_LINE = f"replace it, or remove it with its line in {_ANNOTATIONS}"

Classes = dict[str, list[str]]
"""Paths of the pictures by class, both in `byte_order`; the names of the classes as `readable` gives them."""


@finder
def find_folder(root: Path) -> Found:
    """Find the pictures of every split.

    Raises:
        DataError: a folder is missing or may not be read, a class is empty or alone, the classes of the splits differ,
            or a picture's link leads nowhere.
    """
    if not is_folder(root / "train"):
        explain_missing_train(root)
        raise missing_set("image folders", root, ["train/CLASS/PICTURE with val/, valid/ or test/ beside it"], False)
    leavings = Leavings(root)
    train = _classes(root / "train", leavings)
    check_classes(root / "train", train)
    _check_ids(root, train)
    splits, sources, notes = {"train": train}, {"train": "train/"}, []
    folder = _validation_folder(root)
    validation = _validation(folder, train, leavings) if folder is not None else None
    test, why_not = _test(root / "test", train, leavings, needed=validation is None)
    if test is not None:
        splits["test"], sources["test"] = test, "test/"
        if validation is not None and folder is not None:
            splits["validation"], sources["validation"] = validation, f"{folder.name}/"
    elif validation is not None and folder is not None:
        splits["test"], sources["test"] = validation, f"{folder.name}/"
        notes.append(f"{folder.name}/ is the test set: {why_not}")
    else:
        raise DataError(f"{root} holds train/ only, expected val/, valid/ or test/ with the same classes beside it")
    described = [root / name for name in (_CLASS_WORDS,) if (root / _CLASS_IDS).is_file() and (root / name).is_file()]
    names, names_from = _names(described, train)
    _rest_of_root(root, folder, described, leavings)
    files = tuple(path for classes in splits.values() for paths in classes.values() for path in paths)
    annotations = [folder / _ANNOTATIONS] if folder is not None and _is_annotated(folder) else []
    parts = {split: (classes, bool(annotations) and classes is validation) for split, classes in splits.items()}
    return Found(
        root=str(root),
        files=files + tuple(map(str, [*described, *annotations])),
        load=lambda: Loaded(names, {split: _part(*part) for split, part in parts.items()}),
        num_pictures=len(files),
        survey=Survey(
            layout="folders of pictures",
            names_from=names_from,
            root=str(root),
            sources=sources,
            left_out=leavings.all(),
            notes=tuple(notes),
        ),
    )


def _classes(folder: Path, leavings: Leavings) -> Classes:
    """Return the pictures of each class folder. Raises DataError for an empty class or one that is there twice."""
    walk = Walk(leavings)
    names, stray = walk.entries(str(folder))
    alike = look_alike(names)
    if alike is not None:
        raise DataError(
            f"{folder}: {printable(alike[0])} and {printable(alike[1])} look like one class in two folders; merge or "
            f"rename them"
        )
    for name in stray:
        leavings.add(_STRAY, folder / name)
    found: Classes = {}
    for name in sorted(names, key=byte_order):
        check_levels(folder / name)
        found[readable(name)] = walk.pictures(str(folder / name))
    walk.finish()
    for name, pictures in zip(sorted(names, key=byte_order), found.values(), strict=True):
        if not pictures:
            endings = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
            raise DataError(
                f"{printable(str(folder / name), None)} holds no pictures, expected at least one ({endings}); "
                f"fill it, or remove the class from every split"
            )
    return found


def _check_ids(root: Path, train: Classes) -> None:
    """Compare the class folders with Tiny ImageNet's list, when there is one."""
    listed = root / _CLASS_IDS
    if listed.is_file():
        expected = {readable(word) for line in text_lines(listed) for word in line.split()}
        if set(train) != expected:
            raise DataError(
                f"{root / 'train'} and {listed} disagree: {difference(set(train), expected)}; bring back the folders, "
                "or correct the list"
            )


def _match(folder: Path, found: Classes, train: Classes) -> Classes:
    if set(found) != set(train):
        raise DataError(
            f"the classes of {folder} ({len(found)}) differ from those of train ({len(train)}): "
            f"{difference(set(found), set(train))}; both need the same folders"
        )
    return found


def _validation_folder(root: Path) -> Path | None:
    folders = [root / name for name in _VALIDATION_FOLDERS if is_folder(root / name)]
    if len(folders) > 1:
        raise DataError(f"{root} holds {' and '.join(folder.name for folder in folders)}, expected one of them")
    return folders[0] if folders else None


def _is_annotated(folder: Path) -> bool:
    return (folder / _ANNOTATIONS).is_file() and Walk(Leavings(folder)).entries(str(folder))[0] == ["images"]


def _validation(folder: Path, train: Classes, leavings: Leavings) -> Classes:
    if _is_annotated(folder):
        return _match(folder, _annotated(folder, leavings), train)
    folders, pictures = Walk(Leavings(folder)).entries(str(folder))
    if pictures and not folders:
        raise DataError(
            f"{folder} is flat: its pictures carry no class. Expected {folder.name}/CLASS/PICTURE, as in train. "
            f"ImageNet's original validation archive is like this: sort it with the ground truth of the development kit"
        )
    return _match(folder, _classes(folder, leavings), train)


def _test(folder: Path, train: Classes, leavings: Leavings, needed: bool) -> tuple[Classes | None, str]:
    """Return the test pictures by class; None and the reason where there are none with a label."""
    if not is_folder(folder):
        return None, "there is no test/"
    folders, _ = Walk(Leavings(folder)).entries(str(folder))
    known = {readable(name) for name in folders} & set(train)
    if known or len(folders) > 1:
        return _match(folder, _classes(folder, leavings), train), ""
    if needed:
        raise DataError(
            f"{folder}: its pictures carry no class, and there is no val/ or valid/ to test on; expected "
            f"test/CLASS/PICTURE with the classes of train"
        )
    # Published without labels, as Tiny ImageNet's test/images/ is.
    walk = Walk(leavings)
    number = len(walk.pictures(str(folder)))
    walk.finish()
    if number:
        leavings.add("pictures of test/, which carry no class", folder, number)
    return None, "the pictures of test/ carry no class"


def _annotated(folder: Path, leavings: Leavings) -> Classes:
    """Return Tiny ImageNet's flat validation pictures by class, as its annotations say."""
    walk = Walk(leavings)
    paths = walk.pictures(str(folder / "images"))
    walk.finish()
    by_name = {readable(os.path.relpath(path, folder / "images")): path for path in paths}
    if len(by_name) < len(paths):
        raise DataError(f"{folder / 'images'} holds two pictures whose names are one and the same text; rename one")
    found: Classes = {}
    lines: dict[str, int] = {}
    listed = folder / _ANNOTATIONS
    for number, line in enumerate(text_lines(listed), start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) < 2:
            raise DataError(f"{listed} line {number}: found {printable(line)!r}, expected FILE<tab>CLASS<tab>...")
        name, label = readable(columns[0]), readable(columns[1].strip())
        if name not in by_name:
            path = printable(str(folder / "images" / name), None)
            raise DataError(f"{listed} line {number} names {path}, which is missing: bring it back, or remove the line")
        if name in lines:
            raise DataError(
                f"{listed} line {number} names {printable(name)}, as line {lines[name]} does: remove one of the lines"
            )
        lines[name] = number
        found.setdefault(label, []).append(by_name[name])
    for name in set(by_name) - set(lines):
        leavings.add(f"pictures that {_ANNOTATIONS} does not name", by_name[name])
    return {name: sorted(found[name], key=_by_parts) for name in sorted(found, key=str.encode)}


def _by_parts(path: str) -> tuple[bytes, bytes]:
    return byte_order(*path.split(os.sep))


def _names(described: list[Path], train: Classes) -> tuple[tuple[str, ...], str]:
    """Return the names of the folders, or what Tiny ImageNet's list of words calls them; and which of the two."""
    words: dict[str, str] = {}
    for path in described:
        for number, line in enumerate(text_lines(path), start=1):
            identity, _, name = line.partition("\t")
            identity, name = readable(identity), readable(name.strip())
            if words.setdefault(identity, name) != name and identity in train:
                raise DataError(
                    f"{path} line {number} calls {printable(identity)} {printable(name)!r}, an earlier line "
                    f"{printable(words[identity])!r}: remove one of the lines"
                )
    known = sum(bool(words.get(name)) for name in train)
    source = "named by their folders" if not known else f"named by {_CLASS_WORDS}"
    if 0 < known < len(train):
        source += f" ({len(train) - known:,} that it lacks by their folders)"
    return tuple(words.get(name) or name for name in train), source


def _rest_of_root(root: Path, validation: Path | None, described: list[Path], leavings: Leavings) -> None:
    used = {"train", "test", _CLASS_IDS, *(path.name for path in described)}
    if validation is not None:
        used.add(validation.name)
    for name in sorted(os.listdir(root), key=os.fsencode):
        if name.startswith((".", "__")):
            leavings.add(HIDDEN, root / name)
        elif name not in used:
            leavings.add("files and folders beside the splits", root / name)


def _part(classes: Classes, annotated: bool) -> EncodedPart:
    remedy = _WITH_ITS_LINE if annotated else Picture.remedy
    paths = [path for pictures in classes.values() for path in pictures]
    counts = [len(pictures) for pictures in classes.values()]
    return EncodedPart(
        labels=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        pictures=lambda: (Picture(path, remedy=remedy) for path in paths),
        picture=lambda position: Picture(paths[position], remedy=remedy),
        labels_listed=annotated,
    )
