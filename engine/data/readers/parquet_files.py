"""A single Parquet file: its columns, values, and what the hub's metadata call them.

Everything is read in the calling thread: one of pyarrow's own that meets damaged bytes may outlive the error, and the
end of the process would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from pydantic import TypeAdapter

from engine.data.class_names import printable, readable
from engine.data.readers.boundary import naming_files
from engine.data.readers.columns import kind_of
from engine.data.readers.parquet_footer import check_footer
from engine.errors import DataError
from engine.reading import checked, first_line, parse_json

ROWS = 100_000_000
"""The most rows of a data set: the labels of so many have 0.8 GB, however small the files are that state them."""

_BUFFER_BYTES = 1 << 20
_COMPARED_BYTES = 64 << 20
_METADATA = b"huggingface"
_FEATURES: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[str])


def open_shard(shard: Path, words: str | None = None) -> pyarrow.parquet.ParquetFile:
    """Open a shard; its metadata are read.

    Args:
        shard: the file.
        words: a column of text that is to be read as dictionaries, where a word in a million rows is there once.

    Raises:
        DataError: it is damaged, its footer is too long or asks for too much memory, or it may not be read.
    """
    items = check_footer(shard, DataError)
    try:
        # Without a buffer, memory would be taken for as many bytes as a column is said to have.
        file = pyarrow.parquet.ParquetFile(
            shard,
            buffer_size=_BUFFER_BYTES,
            read_dictionary=None if words is None else [words],
            thrift_container_size_limit=items,
        )
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


def check_rows(shards: Sequence[Path]) -> None:
    """Refuse a data set of more than `ROWS` rows, before anything is read that has a length of its own for each.

    Raises:
        DataError: there are more, or a shard cannot be opened.
    """
    rows = sum(open_shard(shard).metadata.num_rows for shard in shards)
    if rows > ROWS:
        raise DataError(
            f"{shards[0].parent if len(shards) > 1 else shards[0]}: has {rows:,} rows, expected at most {ROWS:,} in a "
            "data set: a file is damaged, or the set too large; fetch it again, or keep fewer rows"
        )


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
    numbers: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    known: dict[Any, int] = {}
    rows = empty = blank = 0
    with naming_files(f"{shard}, column {printable(column)}"):
        kind = kind_of(open_shard(shard).schema_arrow.field(column).type)
        for chunk in _chunks(shard, column):
            rows += len(chunk)
            empty += chunk.null_count
            if empty:
                continue
            if kind == "number":
                numbers.append(chunk.cast(pyarrow.int64()).to_numpy().astype(np.int64))
                continue
            words = chunk if pyarrow.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
            indices = words.indices.to_numpy(zero_copy_only=False)
            # Those that are there, in the order of their rows: a file's own dictionary may hold others, too.
            present, first = np.unique(indices, return_index=True)
            present = present[np.argsort(first)]
            found = words.dictionary.take(pyarrow.array(present)).to_pylist()
            found = [readable(value) if isinstance(value, str) else value for value in found]
            blanks = [place for place, value in zip(present, found, strict=True) if value is None or value == ""]
            blank += int(np.isin(indices, blanks).sum())
            places = np.zeros(len(words.dictionary), dtype=np.int64)
            places[present] = [known.setdefault(value, len(known)) for value in found]
            numbers.append(places[indices])
        if rows and empty == rows:
            return None
        _refuse_empty(shard, column, empty)
        _refuse_empty(shard, column, blank)
        return np.concatenate(numbers), None if kind == "number" else list(known)


def _chunks(shard: Path, column: str) -> Iterator[pyarrow.Array]:
    """Yield a column that is no list or struct, row group by row group, text as dictionaries.

    All row groups may share one place in the file, so that together they have any number of bytes.
    """
    check_rows([shard])
    file = open_shard(shard)
    kind = file.schema_arrow.field(column).type
    place = [file.schema.column(number).path for number in range(len(file.schema))].index(column)
    held = [file.metadata.row_group(group).column(place).num_values for group in range(file.num_row_groups)]
    if sum(held) != file.metadata.num_rows:
        raise DataError(
            f"{shard}: column {printable(column)} has {sum(held):,} values, but the file says that it has "
            f"{file.metadata.num_rows:,} rows: it is damaged; fetch it again"
        )
    if kind_of(kind) == "text":
        file = open_shard(shard, column)
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, columns=[column], use_threads=False).column(0).chunks


def all_different(shards: tuple[Path, ...], column: str) -> bool:
    """Tell whether a column has another value in every row of all shards. Raises DataError."""
    kept: list[pyarrow.Array] = []
    held, compared = 0, _COMPARED_BYTES
    with naming_files(f"{shards[0].parent}, column {printable(column)}"):
        for shard in shards:
            for chunk in _chunks(shard, column):
                is_dictionary = pyarrow.types.is_dictionary(chunk.type)
                # Most columns repeat a value at once, and then none is written out.
                if _distinct([chunk.indices if is_dictionary else chunk]) < len(chunk):
                    return False
                kept.append(chunk.cast(chunk.type.value_type) if is_dictionary else chunk)
                held += kept[-1].nbytes
                # Now and then, because a value of any length that is repeated is soon more than memory holds.
                if held > compared:
                    if _distinct(kept) < sum(map(len, kept)):
                        return False
                    compared = 2 * held
        rows = sum(map(len, kept))
        return rows > 1 and _distinct(kept) == rows


def _distinct(chunks: list[pyarrow.Array]) -> int:
    found: int = pyarrow.compute.count_distinct(pyarrow.chunked_array(chunks), mode="all").as_py()
    return found


def _refuse_empty(shard: Path, column: str, number: int) -> None:
    if number:
        raise DataError(
            f"{shard}: {number:,} rows of column {printable(column)} are empty, expected a label in each; fill them "
            f"or remove the rows"
        )
