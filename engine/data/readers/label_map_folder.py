"""Reader of pictures with label maps: images/SPLIT/NAME.jpg and labels/SPLIT/NAME.png, and a table of the classes.

SPLIT is train, and val (valid, validation) or test, or both. A picture and its label map have the same name and the
same folders above it below SPLIT, whatever their endings. Images are ordered by (folder, file name), by byte values.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from engine.data.class_names import printable
from engine.data.inventory import Leavings, Survey
from engine.data.parts import EncodedPart, Found, Loaded, MapFiles, Picture
from engine.data.pictures.label_maps import read_map
from engine.data.readers.boundary import finder, is_folder
from engine.data.readers.class_tables import ClassTable, read_table
from engine.data.readers.completeness import missing_set
from engine.data.readers.walking import HIDDEN, Walk
from engine.errors import DataError

IMAGES, LABELS = "images", "labels"
_VALIDATION = ("val", "valid", "validation")
_MOST_NAMED = 5

Pairs = dict[str, str]
"""Paths of label maps by those of their pictures, in the order of the pictures."""


@finder
def find_label_maps(root: Path, class_names: tuple[str, ...] | None) -> Found:
    """Find the pictures and label maps of every split.

    Args:
        root: the set's folder.
        class_names: what the recipe calls the classes; None where a table beside the pictures does.

    Raises:
        DataError: a folder is missing, a picture has no label map or the reverse, or there is no table of classes.
    """
    if not is_folder(root / IMAGES / "train"):
        layout = "images/train/PICTURE with labels/train/PICTURE.png, and the same for val, valid, test beside train"
        raise missing_set("pictures with label maps", root, [layout], False)
    table, listed = read_table(root, class_names)
    leavings = Leavings(root)
    splits: dict[str, Pairs] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    validation = [name for name in _VALIDATION if is_folder(root / IMAGES / name)]
    if len(validation) > 1:
        raise DataError(f"{root / IMAGES} holds {' and '.join(validation)}, expected one of them")
    for split, folder in (("train", "train"), ("validation", "".join(validation)), ("test", "test")):
        if not folder or not is_folder(root / IMAGES / folder):
            continue
        if split == "test" and validation and not is_folder(root / LABELS / folder):
            leavings.add("pictures of test/, which have no label maps", root / IMAGES / folder)
            continue
        splits[split], sources[split] = _paired(root, folder, leavings), f"{IMAGES}/{folder}/ and {LABELS}/{folder}/"
    if "test" not in splits:
        if "validation" not in splits:
            raise DataError(f"{root / IMAGES} holds train/ only, expected val/, valid/ or test/ beside it")
        splits["test"], sources["test"] = splits.pop("validation"), sources.pop("validation")
        notes.append(f"{validation[0]}/ is the test set: there is no test/ with label maps")
    _rest_of_root(root, listed, leavings)
    survey = Survey(
        layout="pictures with label maps",
        names_from=table.source,
        root=str(root),
        sources=sources,
        left_out=leavings.all(),
        notes=tuple(notes),
    )
    return found_pairs(root, splits, table, survey, () if listed is None else (str(listed),))


def found_pairs(
    root: Path, splits: dict[str, Pairs], table: ClassTable, survey: Survey, others: tuple[str, ...]
) -> Found:
    """Return a set of pictures with label maps.

    Args:
        root: the set's folder.
        splits: the pairs of each split.
        table: what the values mean.
        survey: what was seen.
        others: further files that decide the labels.
    """
    files = tuple(path for pairs in splits.values() for pair in pairs.items() for path in pair)
    return Found(
        root=str(root),
        files=files + others,
        load=lambda: Loaded(table.names, {split: _part(pairs, table) for split, pairs in splits.items()}),
        survey=survey,
        reading={"classes": list(table.names), "values": sorted(table.values.items())},
        label_maps=True,
    )


def _part(pairs: Pairs, table: ClassTable) -> EncodedPart:
    pictures = list(pairs)
    return EncodedPart(
        labels=np.zeros(len(pictures), dtype=np.int64),
        pictures=lambda: map(_picture, pictures),
        picture=lambda position: _picture(pictures[position]),
        maps=MapFiles(tuple(pairs.values()), functools.partial(read_map, table=table)),
    )


def _picture(path: str) -> Picture:
    return Picture(path, remedy="replace it, or remove it with its label map")


def _paired(root: Path, folder: str, leavings: Leavings) -> Pairs:
    if not is_folder(root / LABELS / folder):
        raise DataError(
            f"{root / IMAGES / folder} has no {root / LABELS / folder} beside it: expected a label map for each picture"
        )
    pictures = _by_name(root / IMAGES / folder, leavings)
    maps = _by_name(root / LABELS / folder, leavings)
    refuse_unpaired(
        [path for name, path in pictures.items() if name not in maps],
        [path for name, path in maps.items() if name not in pictures],
        len(pictures),
    )
    if not pictures:
        raise DataError(f"{root / IMAGES / folder} holds no pictures, expected at least one")
    return {path: maps[name] for name, path in pictures.items()}


def refuse_unpaired(pictures: list[str], maps: list[str], number: int) -> None:
    """Refuse pictures without a label map, and label maps without a picture, by name.

    Args:
        pictures: paths of those without a map.
        maps: paths of those without a picture.
        number: how many pictures there are in all.

    Raises:
        DataError: there are some.
    """
    if pictures:
        raise DataError(
            f"{len(pictures):,} of {number:,} pictures have no label map of the same name: {_some(pictures)}; add the "
            "maps, or remove the pictures"
        )
    if maps:
        raise DataError(
            f"{len(maps):,} label maps have no picture of the same name: {_some(maps)}; add the pictures, or "
            "remove the maps"
        )


def _by_name(folder: Path, leavings: Leavings) -> dict[str, str]:
    walk = Walk(leavings)
    paths = walk.pictures(str(folder))
    walk.finish()
    found: dict[str, str] = {}
    for path in paths:
        name = os.path.splitext(os.path.relpath(path, folder))[0]
        if name in found:
            raise DataError(
                f"{printable(found[name], None)} and {printable(path, None)} have the same name: it is open which of "
                "them is meant; remove one"
            )
        found[name] = path
    return found


def _some(paths: list[str]) -> str:
    more = f", and {len(paths) - _MOST_NAMED:,} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(printable(path, None) for path in paths[:_MOST_NAMED]) + more


def _rest_of_root(root: Path, listed: Path | None, leavings: Leavings) -> None:
    used = {IMAGES, LABELS, *([] if listed is None else [listed.name])}
    for name in sorted(os.listdir(root), key=os.fsencode):
        if name.startswith((".", "__")):
            leavings.add(HIDDEN, root / name)
        elif name not in used:
            leavings.add("files and folders beside images/ and labels/", root / name)
