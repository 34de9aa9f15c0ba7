"""Tables of the classes of label maps: which value stands for which class, and what the classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.class_names import look_alike, printable, readable
from engine.data.readers.text_lines import csv_rows, text_lines
from engine.errors import DataError

IGNORED = 255
"""The value of a pixel without a class: it is neither learned nor scored."""

TABLE_FILES = ("classes.csv", "classes.txt")
"""Where a table lies beside the pictures."""

_UNKNOWN = 254
_MOST_CLASSES = _UNKNOWN
_HEADER = ["value", "name"]


@dataclass(frozen=True)
class ClassTable:
    """What the values of a set's label maps mean.

    Attributes:
        names: of the classes, in label order, C of them.
        values: by value in a file, 0 to 255, its class, or None where it is to be ignored.
        source: where the names come from, in words.
    """

    names: tuple[str, ...]
    values: dict[int, int | None]
    source: str

    def classes_of(self, found: np.ndarray) -> np.ndarray:
        """Return the classes of a file's values, uint8 of the same shape, 255 where a pixel has none.

        Args:
            found: uint8, any shape.

        Raises:
            ValueError: a value is not in the table; the message lists the values.
        """
        lookup = np.full(256, _UNKNOWN, dtype=np.uint8)
        for value, label in self.values.items():
            lookup[value] = IGNORED if label is None else label
        classes = lookup[found]
        unknown = classes == _UNKNOWN
        if unknown.any():
            values, counts = np.unique(found[unknown], return_counts=True)
            raise ValueError(
                ", ".join(f"{value} ({count:,} pixels)" for value, count in zip(values, counts, strict=True))
            )
        return classes

    def words(self) -> str:
        """Return the values that are in the table, in words."""
        known = sorted(value for value, label in self.values.items() if label is not None)
        ignored = sorted(value for value, label in self.values.items() if label is None)
        each = f"{known[0]} to {known[-1]}" if known == list(range(known[0], known[-1] + 1)) else _listed(known)
        return f"{each}, and {_listed(ignored)} for pixels without a class"


def named_table(names: Sequence[str], source: str) -> ClassTable:
    """Return the table of classes 0 to C - 1 in this order, and 255 for pixels without one.

    Raises:
        DataError: fewer than two names, too many, an empty one, or two that look alike.
    """
    found = tuple(readable(name.strip()) for name in names)
    _check(found, source)
    return ClassTable(found, {**dict(enumerate(range(len(found)))), IGNORED: None}, source)


def read_table(root: Path, names: tuple[str, ...] | None) -> tuple[ClassTable, Path | None]:
    """Return the table of a set, and the file that it was read from.

    Args:
        root: the set's folder, which may hold ``classes.txt``, a name a line for the values 0, 1, 2, ..., or
            ``classes.csv``, whose columns ``value`` and ``name`` give each value its class; values of one name are one
            class, and an empty name means that the value is ignored. 255 is ignored in both.
        names: those of the recipe, None where it names none.

    Raises:
        DataError: there is no table, there are two, or it contradicts itself or the recipe.
    """
    present = [root / name for name in TABLE_FILES if (root / name).exists()]
    if len(present) > 1:
        raise DataError(f"{root} holds {' and '.join(path.name for path in present)}: two tables of classes; keep one")
    if not present and names is None:
        raise DataError(
            f"{root} holds no table of classes: give classes.txt, a name a line for the values 0, 1, 2, ..., or "
            "classes.csv with the columns value,name, or data.class_names"
        )
    if not present:
        assert names is not None
        return named_table(names, "named by data.class_names"), None
    (path,) = present
    source = f"named by {path.name}"
    if path.suffix == ".txt":
        lines = text_lines(path)
        while lines and not lines[-1].strip():
            lines.pop()
        table = named_table(lines, str(path))
        table = ClassTable(table.names, table.values, source)
    else:
        table = _read_csv(path, source)
    if names is not None and tuple(map(readable, names)) != table.names:
        raise DataError(
            f"data.class_names={_names(names)}, but {path} names {_names(table.names)}: leave data.class_names out, or "
            "remove the file"
        )
    return table, path


def _read_csv(path: Path, source: str) -> ClassTable:
    rows = csv_rows(path)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header[:2] != _HEADER:
        raise DataError(f"{path} line 1: found {','.join(header) or 'nothing'}, expected the columns value,name")
    values: dict[int, int | None] = {}
    names: list[str] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        value, name = (row[0].strip(), readable(row[1].strip())) if len(row) > 1 else (",".join(row), "")
        if len(row) < 2 or not (value.isascii() and value.isdigit() and int(value) <= IGNORED):
            raise DataError(
                f"{path} line {number}: found {printable(','.join(row))!r}, expected a value from 0 to 255 "
                "and the name of its class, or nothing behind the comma where it is ignored"
            )
        if int(value) in values:
            raise DataError(f"{path} line {number}: value {value} is in an earlier line, too: remove one of them")
        if int(value) == IGNORED and name:
            raise DataError(
                f"{path} line {number}: value {IGNORED} is named {printable(name)!r}, but always means a pixel without "
                "a class: leave the name out, or write the maps with another value"
            )
        if name and name not in names:
            names.append(name)
        values[int(value)] = names.index(name) if name else None
    _check(tuple(names), str(path))
    return ClassTable(tuple(names), {**values, IGNORED: None}, source)


def _check(names: tuple[str, ...], source: str) -> None:
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise DataError(f"{source}: found {len(names)} classes, expected 2 to {_MOST_CLASSES}")
    if "" in names:
        raise DataError(f"{source}: class {names.index('')} has no name; expected one for each")
    alike = look_alike(names)
    if alike is not None:
        raise DataError(f"{source}: {printable(alike[0])} and {printable(alike[1])} look like one class; rename one")


def _names(names: Sequence[str]) -> str:
    return ",".join(map(printable, names))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
