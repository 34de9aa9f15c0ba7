"""Reader of Cityscapes (Cordts et al. 2016) as it is downloaded: leftImg8bit and gtFine.

The labels of its test split are not public; what lies in their place is left out, and val is the test set.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.data.inventory import Leavings, Survey
from engine.data.parts import Found
from engine.data.readers.boundary import finder, is_folder
from engine.data.readers.class_tables import IGNORED, ClassTable
from engine.data.readers.completeness import missing_set
from engine.data.readers.label_map_folder import Pairs, found_pairs, refuse_unpaired
from engine.data.readers.walking import Walk
from engine.errors import DataError

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""The 19 classes that are scored, in the order of their training identifiers."""

PUBLISHED = {"train": 2975, "test": 500}
"""Pictures of each split; the test set here is the published validation set."""

_PICTURE, _IDS, _TRAINING_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
# cityscapesScripts: by class, the identifier in labelIds; all others are ignored.
_IDENTIFIERS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_MOST_IDENTIFIERS = 33
_SPLITS = {"train": "train", "test": "val"}


@finder
def find_cityscapes(root: Path, strict: bool) -> Found:
    """Find the pictures and label maps of train and val.

    The maps are ``labelTrainIds``, which cityscapesScripts makes, where every picture has one, and else ``labelIds``,
    whose values are translated; the same labels come out.

    Raises:
        DataError: a folder or a label map is missing, or the splits are of another size than published.
    """
    if not all(is_folder(root / kind / "train") for kind in ("leftImg8bit", "gtFine")):
        layout = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_labelIds.png"
        raise missing_set("Cityscapes", root, [layout], False)
    leavings = Leavings(root)
    pictures = {split: _named(root / "leftImg8bit" / folder, _PICTURE, leavings) for split, folder in _SPLITS.items()}
    maps = {
        kind: {split: _named(root / "gtFine" / folder, kind, Leavings(root)) for split, folder in _SPLITS.items()}
        for kind in (_TRAINING_IDS, _IDS)
    }
    whole = all(set(pictures[split]) <= set(maps[_TRAINING_IDS][split]) for split in _SPLITS)
    kind = _TRAINING_IDS if whole else _IDS
    splits: dict[str, Pairs] = {}
    for split, found in pictures.items():
        labelled = maps[kind][split]
        refuse_unpaired(
            [path for name, path in found.items() if name not in labelled],
            [path for name, path in labelled.items() if name not in found],
            len(found),
        )
        if strict and len(found) != PUBLISHED[split]:
            raise DataError(
                f"{root / 'leftImg8bit' / _SPLITS[split]}: found {len(found):,} pictures, expected "
                f"{PUBLISHED[split]:,}; the copy is incomplete: fetch the set again (a set of your own is read with "
                "data.name=label_maps, from images/SPLIT and labels/SPLIT)"
            )
        splits[split] = {path: labelled[name] for name, path in found.items()}
    if is_folder(root / "leftImg8bit" / "test"):
        leavings.add("pictures of test/, whose labels are not public", root / "leftImg8bit" / "test")
    survey = Survey(
        layout="Cityscapes as published",
        names_from="as published",
        root=str(root),
        sources={split: f"leftImg8bit/{folder}/ and gtFine/{folder}/" for split, folder in _SPLITS.items()},
        left_out=leavings.all(),
        notes=(f"val/ is the test set; the labels are read from *{kind}",),
    )
    return found_pairs(root, splits, _table(kind), survey, ())


def _table(kind: str) -> ClassTable:
    values: dict[int, int | None] = dict.fromkeys([*range(_MOST_IDENTIFIERS + 1), IGNORED])
    labels = range(len(CLASSES))
    values |= dict(zip(_IDENTIFIERS, labels, strict=True)) if kind == _IDS else {}
    if kind == _TRAINING_IDS:
        values = {**dict(enumerate(labels)), IGNORED: None}
    return ClassTable(CLASSES, values, "as published")


def _named(folder: Path, ending: str, leavings: Leavings) -> dict[str, str]:
    """Return the paths of the pictures whose names have an ending, by city and name without it."""
    if not is_folder(folder):
        raise DataError(f"{folder} is missing: the copy is incomplete; fetch the set again")
    walk = Walk(leavings)
    paths = walk.pictures(str(folder))
    walk.finish()
    return {os.path.relpath(path, folder).removesuffix(ending): path for path in paths if path.endswith(ending)}
