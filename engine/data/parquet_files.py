"""What one Parquet file says of itself: its columns, values, and what the hub's metadata call them.

Everything is read in the calling thread: one of pyarrow's own that meets damaged bytes may outlive the error, and the
end of the process would wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from pydantic import TypeAdapter

from engine.data.boundary import naming_files
from engine.data.class_names import printable, readable
from engine.data.columns import kind_of
from engine.errors import DataError
from engine.reading import checked, first_line, parse_json

_METADATA = b"huggingface"
_FEATURES: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[str])


def open_shard(shard: Path) -> pyarrow.parquet.ParquetFile:
    """Open a shard; its metadata are read. Raises DataError."""
    try:
        file = pyarrow.parquet.ParquetFile(shard)
        # The types of the columns are worked out when they are first asked for.
        _ = file.schema_arrow
        return file
    except PermissionError as error:
        raise DataError(
            f"{shard}: may not be read by this user ({error.strerror}); change its mode or owner"
        ) from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{shard} ({shard.stat().st_size:,} bytes) cannot be read as Parquet ({first_line(error)}): "
            f"the copy is incomplete or damaged; fetch it again"
        ) from error


def features(shard: Path, schema: pyarrow.Schema) -> dict[str, Mapping[str, Any]]:
    """Return what the hub's metadata say of each column; nothing where there are none.

    Raises:
        DataError: there are metadata, but not as the hub writes them.
    """
    stored = (schema.metadata or {}).get(_METADATA)
    if stored is None:
        return {}
    place = f"{shard}: its `huggingface` metadata"
    found: Any = checked(parse_json(stored, place, DataError), _FEATURES, place, DataError)
    for name in ("info", "features"):
        found = checked(found.get(name, {}), _FEATURES, f"{place}, {name}", DataError)
    return {str(column): said for column, said in found.items() if isinstance(said, Mapping)}


def described(shard: Path, schema: pyarrow.Schema) -> dict[str, str]:
    """Return what kind of values the hub's metadata give to each column, such as ``Image``. Raises DataError."""
    return {column: str(said.get("_type")) for column, said in features(shard, schema).items()}


def class_table(shard: Path, schema: pyarrow.Schema, column: str) -> tuple[str, ...] | None:
    """Return the names of the classes that the shard's metadata list, in label order; None where they list none.

    Raises:
        DataError: the list is none, or holds a name twice.
    """
    names = features(shard, schema).get(column, {}).get("names")
    if names is None:
        return None
    place = f"{shard}: the class names in its `huggingface` metadata"
    table = tuple(readable(name) for name in checked(names, _NAMES, place, DataError))
    if not table:
        raise DataError(f"{place} are none; expected a name for each class")
    if len(set(table)) < len(table):
        twice = next(name for name in table if table.count(name) > 1)
        raise DataError(f"{place} hold {printable(twice)!r} twice; which of the two labels is it?")
    return table


def read_values(shard: Path, column: str) -> tuple[np.ndarray, list[Any] | None] | None:
    """Return the labels of a shard's rows.

    Returns:
        int64 [N] and None where they are numbers; otherwise the positions in a list of the different values, int64
        [N], and that list (of str, bool or int; text as `readable` gives it). None where every row is empty.

    Raises:
        DataError: the column is damaged, or empty in some rows.
    """
    with naming_files(f"{shard}, column {printable(column)}"):
        values = open_shard(shard).read(columns=[column], use_threads=False).column(0)
        kind = kind_of(values.type)
        if len(values) and values.null_count == len(values):
            return None
        if kind == "category":
            values = values.cast(values.type.value_type)
        if kind == "number":
            _refuse_empty(shard, column, values.null_count)
            return values.cast(pyarrow.int64()).to_numpy().astype(np.int64), None
        places: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
        known: dict[Any, int] = {}
        for chunk in values.dictionary_encode().chunks:
            found = [readable(value) if isinstance(value, str) else value for value in chunk.dictionary.to_pylist()]
            _refuse_empty(shard, column, chunk.indices.null_count)
            rows = chunk.indices.to_numpy(zero_copy_only=False)
            empty = [place for place, value in enumerate(found) if value is None or value == ""]
            _refuse_empty(shard, column, int(np.isin(rows, empty).sum()))
            places.append(np.array([known.setdefault(value, len(known)) for value in found], dtype=np.int64)[rows])
        return np.concatenate(places), list(known)


def all_different(shards: tuple[Path, ...], column: str) -> bool:
    """Tell whether a column has another value in every row of all shards. Raises DataError."""
    seen, rows = 0, 0
    with naming_files(f"{shards[0].parent}, column {printable(column)}"):
        tables = [open_shard(shard).read(columns=[column], use_threads=False).column(0) for shard in shards]
        if tables and pyarrow.types.is_dictionary(tables[0].type):
            tables = [table.cast(table.type.value_type) for table in tables]
        values = pyarrow.chunked_array([chunk for table in tables for chunk in table.chunks], type=tables[0].type)
        seen, rows = pyarrow.compute.count_distinct(values, mode="all").as_py(), len(values)
    return rows > 1 and seen == rows


def _refuse_empty(shard: Path, column: str, number: int) -> None:
    if number:
        raise DataError(
            f"{shard}: {number:,} rows of column {printable(column)} are empty, expected a label in each; fill them "
            f"or remove the rows"
        )
