"""Values of a label column as classes, the same ones in every shard and split.

Numbers stay what they are. Text, truth values and categories become classes in sorted order. Where the hub's metadata
list the names of the classes, labels are read by name: a shard whose list has another order is translated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from engine.data.class_names import look_alike, printable
from engine.data.readers.columns import Kind, kind_of
from engine.data.readers.completeness import check_labels
from engine.data.readers.parquet_files import class_table, open_shard, read_values
from engine.data.readers.shards import Shards
from engine.errors import DataError

_MOST_SHOWN = 10


@dataclass(frozen=True)
class Classes:
    """Labels and what they mean."""

    labels: dict[str, np.ndarray]
    """By split, int64 [N], 0 to C - 1; splits without labels are missing."""

    names: tuple[str, ...]
    names_from: str
    notes: tuple[str, ...]
    reading: dict[str, Any] = field(default_factory=dict)
    """What was done to the values, for the key of kept images; empty for plain numbers."""


@dataclass(frozen=True)
class _Shard:
    path: Path
    kind: Kind
    table: tuple[str, ...] | None
    places: np.ndarray
    values: list[Any] | None


def read_classes(shards: Shards, column: str, published: tuple[str, ...] | None = None) -> Classes:
    """Read the labels of all splits.

    Args:
        shards: by split.
        column: the label column of the first training shard.
        published: the classes of a published set, in label order; None for a set of the user's own.

    Raises:
        DataError: shards contradict one another, or a label belongs to no class.
    """
    read: dict[str, list[_Shard]] = {}
    notes: list[str] = []
    first = shards["train"][0]
    for split, paths in shards.items():
        found = [_read(path, column, first) for path in paths]
        if split == "test" and all(shard is None or _unlabelled(shard) for shard in found):
            notes.append("test*.parquet is not used: it has no labels, or -1 in every row")
            continue
        empty = next((path for path, shard in zip(paths, found, strict=True) if shard is None), None)
        if empty is not None:
            raise DataError(
                f"{empty}: column {printable(column)}, the label column of {first}, is missing or empty in every row; "
                f"expected a label in each"
            )
        read[split] = [shard for shard in found if shard is not None]
    _check_kinds(read)
    every = [shard for split in read.values() for shard in split]
    listed = [shard for shard in every if shard.table is not None]
    table = published or (listed[0].table if listed else None)
    others = _check_tables(listed, table, published)
    notes += others + _check_unlisted(every, listed, translated=bool(others))
    if table is not None:
        names, source = table, "as published" if published else "named by the `huggingface` metadata"
    else:
        names, source = _names_of_values(read["train"], column)
    labels = {split: np.concatenate([_labels(shard, names, table) for shard in found]) for split, found in read.items()}
    reading: dict[str, Any] = {}
    if read["train"][0].values is not None:
        reading["classes"] = list(names)
    elif any(shard.table != table for shard in listed):
        reading["tables"] = "by name"
    return Classes(labels, names, source, tuple(notes), reading)


def _read(path: Path, column: str, first: Path) -> _Shard | None:
    schema = open_shard(path).schema_arrow
    if column not in schema.names:
        return None
    held = schema.field(column).type
    kind = kind_of(held)
    if kind is None and not pyarrow.types.is_null(held):
        raise DataError(
            f"{path}: column {printable(column)}, the label column of {first}, holds {held}; expected whole numbers, "
            f"text, truth values or categories, as there"
        )
    values = read_values(path, column)
    if kind is None or values is None:
        return None
    return _Shard(path, kind, class_table(path, schema, column), *values)


def _unlabelled(shard: _Shard) -> bool:
    return shard.values is None and len(shard.places) > 0 and bool((shard.places == -1).all())


def _check_kinds(read: dict[str, list[_Shard]]) -> None:
    first = read["train"][0]
    for found in read.values():
        for shard in found:
            if _sort(shard) != _sort(first):
                raise DataError(
                    f"{first.path} holds {_words(first)} as labels, but {shard.path} {_words(shard)}: expected the "
                    f"same in every shard; write the files anew, or set data.label_column"
                )


def _sort(shard: _Shard) -> str:
    # What is text in one file may be kept as categories in another.
    return {"category": "text"}.get(shard.kind, shard.kind) if shard.values is not None else "number"


def _words(shard: _Shard) -> str:
    return {"number": "whole numbers", "text": "text", "truth": "truth values", "category": "categories"}[shard.kind]


def _check_tables(listed: list[_Shard], table: tuple[str, ...] | None, published: tuple[str, ...] | None) -> list[str]:
    """Refuse lists of classes with other names; say which ones have another order."""
    others: list[str] = []
    for shard in listed:
        if shard.table is None or table is None or shard.table == table:
            continue
        if published:
            raise DataError(
                f"{shard.path}: the classes are {_listed(shard.table)}, expected {_listed(published)}: "
                f"the labels have another order or meaning; a set of your own is read with data.name=parquet"
            )
        if set(shard.table) != set(table):
            raise DataError(
                f"the `huggingface` metadata name other classes in {listed[0].path} ({_listed(table)}) than in "
                f"{shard.path} ({_listed(shard.table)}): expected the same names in every shard"
            )
        others.append(f"{shard.path.name} lists the classes as {_listed(shard.table)}: its labels are read by name")
    return others[:_MOST_SHOWN]


def _check_unlisted(every: list[_Shard], listed: list[_Shard], translated: bool) -> list[str]:
    """Say which shards of numbers name no classes; refuse them where it is open whose numbers they have."""
    unlisted = [shard.path for shard in every if shard.table is None and shard.values is None]
    if not listed or not unlisted:
        return []
    if translated:
        raise DataError(
            f"{unlisted[0]} names no classes, and the shards that do have them in several orders: it is open what its "
            f"numbers mean; store the class names in its `huggingface` metadata"
        )
    more = f" and {len(unlisted) - 1} more name" if len(unlisted) > 1 else " names"
    return [f"{unlisted[0].name}{more} no classes: the numbers are taken as those of {listed[0].path.name}"]


def _names_of_values(train: list[_Shard], column: str) -> tuple[tuple[str, ...], str]:
    if train[0].values is None:
        return _numbered_names(train[0].path, np.concatenate([shard.places for shard in train])), "named by number"
    kind = train[0].kind
    names = tuple(sorted({str(value) for shard in train for value in shard.values or []}))
    alike = look_alike(names)
    if alike is not None:
        raise DataError(
            f"{train[0].path.parent}: {alike[0]!r} and {alike[1]!r} in column {printable(column)} look like one class; "
            f"write them alike, or give them names that differ in more than capitals and spaces"
        )
    words = {"truth": "truth values", "category": "categories"}.get(kind, "texts")
    return names, f"the {words} of column {printable(column)} in sorted order"


def _numbered_names(shard: Path, labels: np.ndarray) -> tuple[str, ...]:
    present = np.unique(labels)
    if len(present) == 0 or not np.array_equal(present, np.arange(len(present))):
        shown = ", ".join(map(str, present[:_MOST_SHOWN].tolist()))
        raise DataError(
            f"{shard.parent}: the training labels are {shown}{', ...' if len(present) > _MOST_SHOWN else ''}; expected "
            f"0 to C - 1 with an image in every class; renumber them, write them as text, or store the class names in "
            f"the `huggingface` metadata"
        )
    return tuple(str(label) for label in present)


def _labels(shard: _Shard, names: tuple[str, ...], table: tuple[str, ...] | None) -> np.ndarray:
    """Return the labels of a shard's rows as positions in `names`, int64 [N]."""
    place = {name: number for number, name in enumerate(names)}
    if shard.values is None:
        own = shard.table or names
        check_labels(str(shard.path), shard.places, len(own))
        return np.array([place[name] for name in own], dtype=np.int64)[shard.places]
    if table is not None and shard.kind == "truth" and len(table) == 2:
        place = {"False": 0, "True": 1}
    unknown = [str(value) for value in shard.values if str(value) not in place]
    if unknown:
        raise DataError(
            f"{shard.path}: {_listed(tuple(unknown))} {'are' if len(unknown) > 1 else 'is'} no class of the training "
            f"images, which have {_listed(names)}; correct its labels, or remove its rows"
        )
    return np.array([place[str(value)] for value in shard.values], dtype=np.int64)[shard.places]


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(printable, names[:_MOST_SHOWN])) + more
