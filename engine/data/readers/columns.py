"""Choice of the columns of Parquet shards that hold pictures and labels.

The pictures are in the only column that can hold them, or else the one called `image` or `img`; the labels in the one
called `label`, then `fine_label`, then the only one that the hub's metadata call a class, then the only one that can
hold labels. A column that has another value in every row is none by guess. Everything else is for the user to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow

from engine.data.class_names import printable
from engine.errors import DataError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "fine_label")

Kind = Literal["number", "text", "truth", "category"]
"""What labels are: classes by number, or values that are put into order."""


@dataclass(frozen=True)
class Columns:
    """The columns that are read, and those that are not."""

    image: str
    label: str
    passed_over: tuple[str, ...]
    reading: dict[str, str]
    """The column of pictures, where it is not the first one; empty otherwise."""


def choose_columns(
    shard: Path,
    schema: pyarrow.Schema,
    asked: tuple[str | None, str | None],
    described: dict[str, str],
    all_different: Callable[[str], bool],
) -> Columns:
    """Choose the columns of a set by those of its first training shard.

    Args:
        shard: for messages.
        schema: of that shard.
        asked: the recipe's `data.image_column` and `data.label_column`.
        described: by column, what the hub's metadata call it (``Image``, ``ClassLabel``).
        all_different: tells whether a column has another value in every row of the training set.

    Raises:
        DataError: there is none, or several readings.
    """
    twice = {field.name for field in schema if len(schema.get_all_field_indices(field.name)) > 1}
    if twice:
        raise DataError(f"{shard} holds two columns called {printable(min(twice))}; expected each name once")
    image = choose_image(shard, schema, asked[0], described)
    label = choose_label(shard, schema, asked[1], described, all_different)
    pictures = picture_columns(schema)
    # What was read before there was a choice, and named nothing.
    first = next((name for name in pictures if pyarrow.types.is_struct(schema.field(name).type)), pictures[0])
    return Columns(
        image=image,
        label=label,
        passed_over=tuple(field.name for field in schema if field.name not in (image, label)),
        reading={"image_column": image} if image != first else {},
    )


def choose_image(shard: Path, schema: pyarrow.Schema, asked: str | None, described: dict[str, str]) -> str:
    """Return the name of the column of pictures. Raises DataError."""
    candidates = picture_columns(schema)
    if asked is not None:
        if asked not in candidates:
            raise DataError(
                f"data.image_column={asked}, but {shard} has no such column of pictures (a struct with a `bytes` child "
                f"or binary): {_listed(schema)}"
            )
        return asked
    for chosen in (
        candidates,
        [name for name in candidates if name in _IMAGE_NAMES],
        [name for name in candidates if described.get(name) == "Image"],
    ):
        if len(chosen) == 1:
            return chosen[0]
    if candidates:
        raise DataError(
            f"{shard} has several columns of pictures, {', '.join(map(printable, candidates))}, and each could be "
            f"trained on; set data.image_column to one of them"
        )
    raise DataError(
        f"{shard} has no column of pictures: expected a struct with a `bytes` child or a binary column, "
        f"found {_listed(schema)}"
    )


def choose_label(
    shard: Path,
    schema: pyarrow.Schema,
    asked: str | None,
    described: dict[str, str],
    all_different: Callable[[str], bool],
) -> str:
    """Return the name of the column of labels. Raises DataError."""
    kinds = {field.name: kind for field in schema if (kind := kind_of(field.type)) is not None}
    if asked is not None:
        if asked not in kinds:
            raise DataError(
                f"data.label_column={asked}, but {shard} has no such column of whole numbers, text, truth values or "
                f"categories: {_listed(schema)}"
            )
        return asked
    for name in _LABEL_NAMES:
        if name in kinds:
            return name
        if name in schema.names:
            raise DataError(
                f"{shard}: column {name} holds {schema.field(name).type}, expected whole numbers, text, truth values "
                f"or categories; set data.label_column to another column ({_listed(schema)})"
            )
    classes = [name for name in kinds if described.get(name) == "ClassLabel"]
    if len(classes) == 1:
        return classes[0]
    different = [name for name in kinds if all_different(name)]
    candidates = [name for name in kinds if name not in different]
    if len(candidates) == 1:
        return candidates[0]
    why = f"each of {_names(candidates)} could" if candidates else "none could"
    more = f" ({_names(different)}: another value in every row, so no class)" if different else ""
    raise DataError(
        f"{shard}: cannot tell which column holds the label, {why}{more}; found {_listed(schema)}; "
        f"set data.label_column"
    )


def picture_columns(schema: pyarrow.Schema) -> list[str]:
    """Return the names of the columns that can hold encoded pictures."""
    return [field.name for field in schema if _is_binary(field.type) or _holds_bytes(field.type)]


def kind_of(kind: pyarrow.DataType) -> Kind | None:
    """Return what labels of an Arrow type are; None for a type that holds none."""
    if pyarrow.types.is_dictionary(kind):
        return "category" if kind_of(kind.value_type) == "text" else None
    if pyarrow.types.is_boolean(kind):
        return "truth"
    if pyarrow.types.is_integer(kind):
        return "number"
    return "text" if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) else None


def _is_binary(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_struct(kind) and any(child.name == "bytes" and _is_binary(child.type) for child in kind)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names))


def _listed(schema: pyarrow.Schema) -> str:
    return ", ".join(f"{printable(field.name)} ({field.type})" for field in schema)
