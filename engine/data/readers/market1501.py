"""Reader of the layout of Market-1501 (Zheng et al. 2015) and DukeMTMC-reID, as they are downloaded.

`bounding_box_train`, `query` and `bounding_box_test` hold pictures with names such as `0002_c1s1_000451_03.jpg`:
identity, camera, sequence, frame, number of the box; DukeMTMC-reID's are `0001_c1_f0044158.jpg`. The identity -1 is
junk and 0000 a distractor, both in `bounding_box_test` only. `gt_bbox`, which Market-1501 has, holds hand-drawn boxes:
further pictures of the queries' identities by their cameras, among others.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from engine.data.appearances import FURTHER, GALLERY, JUNK, QUERY
from engine.data.class_names import printable
from engine.data.inventory import Leavings, Survey
from engine.data.parts import EncodedPart, Found, Loaded, Picture
from engine.data.readers.boundary import finder, is_folder
from engine.data.readers.completeness import missing_set
from engine.data.readers.identities import Seen, label
from engine.data.readers.walking import Walk
from engine.errors import DataError

TRAIN, QUERIES, GALLERIES, BOXES = "bounding_box_train", "query", "bounding_box_test", "gt_bbox"
DISTRACTOR = 0

_FOLDERS = (TRAIN, QUERIES, GALLERIES)
_NOT_READ = {"gt_query": "folders of MATLAB's indices"}
_NAME = re.compile(r"(-1|\d{1,9})_c(\d{1,4})(?:s\d+)?_.*")
_MOST_NAMED = 5


@dataclass(frozen=True)
class _Folder:
    paths: list[str]
    identities: list[int]
    cameras: list[int]


@finder
def find_market1501(root: Path) -> Found | None:
    """Find the folders in `root` or in one folder directly below it; None where none of the first three is.

    Raises:
        DataError: one of the folders is missing or empty, names cannot be read, or the splits contradict one another.
    """
    place = _place(root)
    if place is None:
        return None
    missing = [name for name in _FOLDERS if not is_folder(place / name)]
    if missing:
        raise DataError(
            f"{place} lacks the {'folder' if len(missing) == 1 else 'folders'} {', '.join(missing)}, expected "
            f"{', '.join(_FOLDERS)} as they are downloaded: bring back what is missing"
        )
    leavings = Leavings(root)
    train, query, gallery = (_folder(place / name, leavings) for name in _FOLDERS)
    for path in sorted(place.iterdir()):
        if path.name not in (*_FOLDERS, BOXES) and not path.name.startswith("."):
            leavings.add(_NOT_READ.get(path.name, "files and folders beside the pictures"), path)
    _check_folders(place, train, query, gallery)
    boxes, passed_over = _boxes(place, query, leavings)
    tested = [*query.paths, *gallery.paths, *boxes.paths]
    labelled = label(
        str(place),
        train.identities,
        Seen(
            [*query.identities, *gallery.identities, *boxes.identities],
            [*query.cameras, *gallery.cameras, *boxes.cameras],
            [QUERY] * len(query.paths) + [GALLERY] * len(gallery.paths) + [FURTHER] * len(boxes.paths),
        ),
        (DISTRACTOR,),
    )
    parts = {"train": (train.paths, labelled.train), "test": (tested, labelled.test)}
    names = tuple(f"{int(name):04d}" for name in labelled.class_names)
    return Found(
        root=str(root),
        files=(*train.paths, *tested),
        load=lambda: Loaded(names, {split: picture_part(*part) for split, part in parts.items()}),
        num_pictures=len(train.paths) + len(tested),
        survey=Survey(
            layout="folders of Market-1501's layout",
            names_from="the identities in the names of the training pictures",
            root=str(root),
            sources={"train": f"{TRAIN}/", "test": f"{QUERIES}/, {GALLERIES}/" + f", {BOXES}/" * bool(boxes.paths)},
            left_out=leavings.all(),
            notes=(*labelled.notes, *passed_over),
            kind="identity",
        ),
    )


def missing_market1501(root: Path) -> DataError:
    """Return the error for a folder without this layout."""
    return missing_set("set in Market-1501's layout", root, [", ".join(f"{name}/" for name in _FOLDERS)], False)


def picture_part(paths: list[str], labels: object, remedy: str = Picture.remedy) -> EncodedPart:
    """Return a split of pictures in files, with labels int64 [N]; `remedy` is what can be done about a damaged one."""
    return EncodedPart(
        labels=labels,  # type: ignore[arg-type]
        pictures=lambda: (Picture(path, remedy=remedy) for path in paths),
        picture=functools.partial(_picture, paths, remedy),
    )


def _picture(paths: list[str], remedy: str, position: int) -> Picture:
    return Picture(paths[position], remedy=remedy)


def _place(root: Path) -> Path | None:
    if not is_folder(root):
        return None
    folders = [path for path in sorted(root.iterdir()) if not path.name.startswith(".") and is_folder(path)]
    if any(path.name in _FOLDERS for path in folders):
        return root
    found = [folder for folder in folders if is_folder(folder / TRAIN)]
    if len(found) > 1:
        raise DataError(f"several folders hold {TRAIN}: {', '.join(map(str, found))}; set data.root to one of them")
    return found[0] if found else None


def _folder(folder: Path, leavings: Leavings) -> _Folder:
    found, unreadable = _named(folder, leavings)
    if not found.paths and not unreadable:
        raise DataError(f"{folder} holds no pictures, expected names such as 0002_c1s1_000451_03.jpg; fetch it again")
    if unreadable:
        listed = ", ".join(printable(Path(path).name) for path in unreadable[:_MOST_NAMED])
        more = f" and {len(unreadable) - _MOST_NAMED:,} more" if len(unreadable) > _MOST_NAMED else ""
        raise DataError(
            f"{folder}: {len(unreadable):,} pictures have names without an identity and a camera: {listed}{more}. "
            "Expected names such as 0002_c1s1_000451_03.jpg: rename or remove them"
        )
    return found


def _named(folder: Path, leavings: Leavings) -> tuple[_Folder, list[str]]:
    """Return the pictures of a folder whose names can be read, and the paths of those whose names cannot."""
    walk = Walk(leavings)
    paths = walk.pictures(str(folder))
    walk.finish()
    matches = {path: match for path in paths if (match := _NAME.fullmatch(Path(path).name)) is not None}
    known = [(int(match[1]), int(match[2])) for match in matches.values()]
    found = _Folder(list(matches), [identity for identity, _ in known], [camera for _, camera in known])
    return found, [path for path in paths if path not in matches]


def _boxes(place: Path, query: _Folder, leavings: Leavings) -> tuple[_Folder, list[str]]:
    """Return the pictures of `gt_bbox` that show a query's identity by its camera, and notes that count others."""
    if not is_folder(place / BOXES):
        return _Folder([], [], []), []
    every, unreadable = _named(place / BOXES, leavings)
    asked = set(zip(query.identities, query.cameras, strict=True))
    rows = zip(every.paths, every.identities, every.cameras, strict=True)
    used = [row for row in rows if (row[1], row[2]) in asked]
    others = len(every.paths) - len(used)
    notes = []
    if others:
        notes.append(f"{others:,} pictures of {BOXES}/ show no query's identity by its camera, and are not read")
    if unreadable:
        # Nothing else needs this folder: it ends no training.
        notes.append(f"{len(unreadable):,} pictures of {BOXES}/ have names that cannot be read, and are left out")
    return _Folder([path for path, _, _ in used], [row[1] for row in used], [row[2] for row in used]), notes


def _check_folders(place: Path, train: _Folder, query: _Folder, gallery: _Folder) -> None:
    for name, folder in ((TRAIN, train), (QUERIES, query)):
        # DukeMTMC-reID has no distractors; where there are some, nobody may be called so.
        wrong = [each for each in (DISTRACTOR, JUNK) if each in folder.identities]
        if wrong and (wrong[0] == JUNK or DISTRACTOR in gallery.identities):
            word = "junk" if wrong[0] == JUNK else "distractors"
            raise DataError(
                f"{place / name}: {folder.identities.count(wrong[0]):,} pictures have the identity {wrong[0]:04d}, "
                f"which means {word} and belongs into {GALLERIES} only: remove them, or correct their names"
            )
