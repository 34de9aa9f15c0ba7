"""Reader of tables of identities: Parquet with the pictures in it, or a CSV that names their files.

Each row is a picture, with the columns `image`, `identity`, `camera` (which may be missing) and `split`: `train`,
`query`, `gallery`, or `further`, one more picture of a query's identity by its camera. As a number or as text, the
identity `-1` is junk, and the camera `-1` one that is not known. Parquet files may be one split each instead, by their
names. Pictures of a split `test` are query and gallery in turn.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.data.appearances import FURTHER, GALLERY, QUERY
from engine.data.class_names import printable
from engine.data.inventory import Leavings, Survey
from engine.data.parts import WITH_ITS_ROW, EncodedPart, Found, Loaded, Picture
from engine.data.readers.boundary import finder, is_folder, naming_files
from engine.data.readers.columns import choose_image
from engine.data.readers.completeness import missing_set
from engine.data.readers.identities import JUNK_WORD, Seen, Value, label
from engine.data.readers.market1501 import picture_part
from engine.data.readers.parquet import source_files, stream_pictures
from engine.data.readers.parquet_files import check_rows, described, open_shard, read_values
from engine.data.readers.shards import Shards, find_shards
from engine.data.readers.text_lines import csv_rows
from engine.data.readers.walking import count_unnamed
from engine.errors import DataError

IMAGE, IDENTITY, CAMERA, SPLIT = "image", "identity", "camera", "split"
ROLES = {"query": QUERY, "gallery": GALLERY, "test": QUERY | GALLERY, "further": FURTHER}

_SPLITS = ("train", *ROLES)
_SPLIT_OF_WORD = {word: word for word in _SPLITS}
_NUMBER = re.compile(r"-?\d{1,12}")
_CSV_BYTES = 1 << 30
_LAYOUTS = [
    "one .csv file with the columns image, identity, split and perhaps camera",
    "Parquet files with these columns",
    "train*.parquet with query*.parquet and gallery*.parquet (and perhaps further*.parquet), or with test*.parquet",
]


@dataclass(frozen=True)
class _Table:
    """Rows in the order of the files.

    Attributes:
        identities: of each row.
        cameras: of each row; None where there is no such column.
        splits: of each row, one of `_SPLITS`.
        image: column of the pictures.
        part: makes a split of the rows at some places, int64 [n], with labels int64 [n].
        files: whose bytes decide all this.
        layout: in words.
        passed_over: columns that are not read.
    """

    identities: list[Value]
    cameras: list[Value] | None
    splits: list[str]
    image: str
    part: Callable[[np.ndarray, np.ndarray], EncodedPart]
    files: tuple[str, ...]
    layout: str
    passed_over: tuple[str, ...]


@finder
def find_identities(root: Path, identity_column: str | None = None, image_column: str | None = None) -> Found:
    """Find a table of identities.

    Args:
        root: folder that holds it.
        identity_column: the recipe's `data.label_column`, where identities are in another column than `identity`.
        image_column: the recipe's `data.image_column`, where several columns of Parquet files hold pictures, or another
            column of a `.csv` than `image` names them.

    Raises:
        DataError: there is none, it can be understood in several ways, a column or split is missing, or the splits
            contradict one another.
    """
    identity = identity_column or IDENTITY
    table = _table(root, identity, image_column)
    rows = {split: np.array([at for at, each in enumerate(table.splits) if each == split]) for split in _SPLITS}
    _check_splits(root, rows)
    tested = np.sort(np.concatenate([rows[split] for split in ROLES if len(rows[split])]))
    labelled = label(
        str(root),
        [table.identities[at] for at in rows["train"]],
        Seen(
            [table.identities[at] for at in tested],
            None if table.cameras is None else [table.cameras[at] for at in tested],
            [ROLES[table.splits[at]] for at in tested],
        ),
        remedy=", or, where each split counts its identities anew, set data.label_column to a column that does not",
    )
    parts = {"train": (rows["train"], labelled.train), "test": (tested, labelled.test)}
    leavings = Leavings(root)
    count_unnamed(root, table.files, leavings, "files and folders beside the table")
    columns = {"image": table.image, "identity": identity} | ({} if table.cameras is None else {"camera": CAMERA})
    return Found(
        root=str(root),
        files=table.files,
        load=lambda: Loaded(labelled.class_names, {split: table.part(*part) for split, part in parts.items()}),
        num_pictures=len(table.splits),
        survey=Survey(
            layout=table.layout,
            names_from=f"column {printable(identity)} of the training pictures",
            root=str(root),
            columns=columns,
            passed_over=table.passed_over,
            left_out=leavings.all(),
            notes=labelled.notes,
            kind="identity",
        ),
        # A key of its own: such text was an identity like others once, and labels are kept with the decoded pictures.
        reading=({"junk": JUNK_WORD} if JUNK_WORD in table.identities else {})
        | ({"unknown_camera": JUNK_WORD} if JUNK_WORD in (table.cameras or ()) else {})
        | ({} if image_column is None else {"image_column": image_column}),
    )


def _table(root: Path, identity: str, image: str | None) -> _Table:
    """Return the table below a folder."""
    if not is_folder(root):
        raise missing_set("table of identities", root, _LAYOUTS, False)
    visible = [path for path in sorted(root.iterdir()) if not path.name.startswith(".") and path.is_file()]
    tables = [path for path in visible if path.suffix.lower() == ".csv"]
    parquet = tuple(path for path in visible if path.suffix.lower() == ".parquet")
    if len(tables) > 1 or (tables and parquet):
        found = ", ".join(printable(path.name) for path in (*tables, *parquet))
        raise DataError(f"{root} holds several tables, {found}: keep one .csv file, or Parquet files, and no others")
    if tables:
        return _csv_table(tables[0], identity, image or IMAGE)
    shards = find_shards(root, _SPLIT_OF_WORD)
    if not shards and not parquet:
        raise missing_set("table of identities", root, _LAYOUTS, False)
    return _parquet_table(shards if shards else {"": parquet}, identity, image)


def _check_splits(root: Path, rows: dict[str, np.ndarray]) -> None:
    there = [split for split in _SPLITS if len(rows[split])]
    if "train" not in there or not ({"query", "gallery"} <= set(there) or there == ["train", "test"]):
        raise DataError(
            f"{root}: found pictures of {', '.join(there) or 'no split'}, expected train with query and gallery, or "
            "train with test, of which every picture is query and gallery in turn"
        )
    if "test" in there and len(there) > 2:
        raise DataError(
            f"{root}: found pictures of {', '.join(there)}; are those of test query, gallery, or both in turn? Rename "
            "them to query or gallery, or give nothing but train and test"
        )


def _csv_table(path: Path, identity: str, image: str) -> _Table:
    lines = csv_rows(path, _CSV_BYTES)
    header, body = lines[0] if lines else [], [line for line in lines[1:] if line]
    columns = [name.strip() for name in header]
    _check_columns(path, columns, needed=(image, identity, SPLIT))
    places = {name: columns.index(name) for name in (image, identity, CAMERA, SPLIT) if name in columns}
    ragged = next((at for at, line in enumerate(body) if len(line) != len(header)), None)
    if ragged is not None:
        raise DataError(f"{path} row {ragged + 1}: has {len(body[ragged])} fields, expected {len(header)}; correct it")
    values = {name: [line[place].strip() for line in body] for name, place in places.items()}
    for name, column in values.items():
        if "" in column:
            raise DataError(f"{path} row {column.index('') + 1}: column {name} is empty; fill it or remove the row")
    paths = [str(path.parent / name) for name in values[image]]
    missing = [at for at, each in enumerate(paths) if "\0" in each or not Path(each).is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing):,} pictures are not there, the first in row {missing[0] + 1}: "
            f"{printable(values[image][missing[0]], None)}, expected paths relative to {path.parent}; correct them, "
            "bring back the pictures, or remove the rows"
        )
    _check_words(path, values[SPLIT])
    return _Table(
        identities=_numbers_or_text(values[identity]),
        cameras=_numbers_or_text(values[CAMERA]) if CAMERA in values else None,
        splits=values[SPLIT],
        image=image,
        part=lambda rows, labels: replace(
            picture_part([paths[at] for at in rows], labels, WITH_ITS_ROW), labels_listed=True
        ),
        files=(str(path), *paths),
        layout="a table of identities in CSV",
        passed_over=tuple(name for name in columns if name not in places),
    )


def _parquet_table(shards: Shards, identity: str, image_column: str | None) -> _Table:
    by_name = "" not in shards
    paths = tuple(path for split in shards.values() for path in split)
    check_rows(paths)
    schema = open_shard(paths[0]).schema_arrow
    image = choose_image(paths[0], schema, image_column, described(paths[0], schema))
    has_camera = CAMERA in schema.names
    identities: list[Value] = []
    cameras: list[Value] = []
    splits: list[str] = []
    for split, files in shards.items():
        for path in files:
            names = open_shard(path).schema_arrow.names
            _check_columns(path, names, needed=(image, identity) if by_name else (image, identity, SPLIT))
            if by_name and SPLIT in names:
                raise DataError(
                    f"{path} is named like the {split} split, and has a column {SPLIT}, which may say otherwise: "
                    "rename the column or the file"
                )
            if (CAMERA in names) != has_camera:
                other = "has no" if has_camera else "has a"
                raise DataError(f"{path} {other} column {CAMERA}, unlike {paths[0]}; expected it in all files or none")
            identities += _column(path, identity)
            cameras += _column(path, CAMERA) if has_camera else []
            rows = open_shard(path).metadata.num_rows
            found = [split] * rows if by_name else [str(value) for value in _column(path, SPLIT)]
            _check_words(path, found)
            splits += found
    _check_alike(paths, identity, identities)
    _check_alike(paths, CAMERA, cameras)
    return _Table(
        identities=identities,
        cameras=cameras if has_camera else None,
        splits=splits,
        image=image,
        part=lambda rows, labels: EncodedPart(labels, functools.partial(_rows_of, paths, image, rows)),
        files=source_files(shards, image),
        layout="Parquet files of identities",
        passed_over=tuple(name for name in schema.names if name not in (image, identity, CAMERA, SPLIT)),
    )


def _rows_of(paths: tuple[Path, ...], image: str, rows: np.ndarray) -> Iterator[Picture]:
    """Yield the pictures of ascending rows, counted over all files."""
    wanted = iter(rows.tolist())
    following = next(wanted, None)
    for row, picture in enumerate(stream_pictures(paths, image)):
        if row == following:
            yield picture
            following = next(wanted, None)


def _column(path: Path, name: str) -> list[Value]:
    with naming_files(f"{path}, column {name}"):
        found = read_values(path, name)
    if found is None:
        raise DataError(f"{path}: column {name} is empty; fill it")
    places, values = found
    if values is None:
        return [int(number) for number in places]
    return [str(values[place]) for place in places]


def _check_columns(path: Path, columns: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if columns.count(name) != 1]
    if missing:
        fields = dict(zip(needed, ("data.image_column", "data.label_column"), strict=False))
        absent = missing[0] not in columns
        otherwise = f", or set {fields[missing[0]]} to another one" if absent and missing[0] in fields else ""
        raise DataError(
            f"{path} has {'no column' if absent else 'several columns'} {missing[0]}, found "
            f"{', '.join(map(printable, columns)) or 'none'}; expected {', '.join(needed)} once each, and perhaps "
            f"{CAMERA}: correct the columns{otherwise}"
        )


def _check_words(path: Path, splits: list[str]) -> None:
    wrong = next((at for at, split in enumerate(splits) if split not in _SPLITS), None)
    if wrong is not None:
        raise DataError(
            f"{path} row {wrong + 1}: column {SPLIT} holds {printable(splits[wrong])!r}, expected one of "
            f"{', '.join(_SPLITS)}"
        )


def _check_alike(paths: tuple[Path, ...], name: str, values: list[Value]) -> None:
    if len({type(value) for value in values}) > 1:
        raise DataError(
            f"{', '.join(map(str, paths))}: column {name} holds numbers in one file and text in another; expected one "
            "kind in all"
        )


def _numbers_or_text(values: list[str]) -> list[Value]:
    if all(_NUMBER.fullmatch(value) for value in values):
        return [int(value) for value in values]
    return list(values)
