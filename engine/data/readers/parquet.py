"""Reader of Parquet shards in the layout of the Hugging Face hub."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from engine.data.inventory import Leavings, Survey
from engine.data.parts import WITH_ITS_ROW, EncodedPart, Found, Loaded, Picture
from engine.data.pictures.decoding import encoded_limit
from engine.data.pictures.picture_limits import PIXELS_VARIABLE, pixel_limit
from engine.data.readers.boundary import finder, naming_files
from engine.data.readers.columns import Columns, choose_columns, picture_columns
from engine.data.readers.completeness import missing_set
from engine.data.readers.label_values import Classes, read_classes
from engine.data.readers.parquet_files import all_different, check_rows, described, open_shard
from engine.data.readers.shards import Shards, find_shards
from engine.data.readers.walking import count_unnamed
from engine.errors import DataError
from engine.reading import first_line

_PATHS_AT_ONCE = 65_536
_PATH_BYTES_AT_ONCE = 256 * 2**20


@finder
def find_parquet(root: Path, image_column: str | None = None, label_column: str | None = None) -> Found:
    """Find a user's own shards: train*.parquet and test*, validation* or valid*.

    Args:
        root: folder that holds them, or a folder with them.
        image_column: the recipe's `data.image_column`.
        label_column: the recipe's `data.label_column`.

    Raises:
        DataError: shards are missing, damaged, or can be understood in several ways, or there is nothing to test on.
    """
    shards = find_shards(root)
    if not shards:
        raise missing_set("Parquet data set", root, ["train*.parquet, also in one folder below it"], False)
    folder = shards["train"][0].parent
    if len(shards) == 1:
        raise DataError(f"{folder} holds train*.parquet only, expected test*, validation* or valid*.parquet beside it")
    columns, classes = read_columns(shards, (image_column, label_column))
    labels, used, notes = dict(classes.labels), dict(shards), list(classes.notes)
    if "test" not in labels:
        if "validation" not in labels:
            raise DataError(
                f"{shards['test'][0]}: no row has a label (every one is -1 or empty), and there is no "
                f"validation*.parquet to test on"
            )
        if "test" not in shards:
            notes.append("the validation shards are the test set: there is no test*.parquet")
        labels["test"] = labels.pop("validation")
        used["test"] = used.pop("validation")
    files, leavings = source_files(shards, columns.image), Leavings(root)
    count_beside(root, files, leavings)
    parts = {split: encoded_part(used[split], columns.image, found, None) for split, found in labels.items()}
    return Found(
        root=str(root),
        files=files,
        load=lambda: Loaded(class_names=classes.names, parts=dict(parts)),
        num_pictures=sum(open_shard(path).metadata.num_rows for paths in shards.values() for path in paths),
        survey=survey(root, {split: used[split] for split in labels}, columns, classes, leavings, notes),
        reading=columns.reading | classes.reading,
    )


def count_beside(root: Path, files: Iterable[str], leavings: Leavings) -> None:
    """Count what lies beside shards, and beside the pictures that they name."""
    count_unnamed(root, files, leavings, "files and folders beside the shards")


def survey(
    root: Path, shards: Shards, columns: Columns, classes: Classes, leavings: Leavings, notes: list[str]
) -> Survey:
    """Return what was seen of a set of shards; `notes` are further sentences about it."""
    return Survey(
        layout="Parquet shards",
        names_from=classes.names_from,
        root=str(root),
        sources={
            split: f"{paths[0].relative_to(root)}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
            for split, paths in shards.items()
        },
        columns={"image": columns.image, "label": columns.label},
        passed_over=columns.passed_over,
        left_out=leavings.all(),
        notes=tuple(notes),
    )


def read_columns(
    shards: Shards, asked: tuple[str | None, str | None] = (None, None), published: tuple[str, ...] | None = None
) -> tuple[Columns, Classes]:
    """Choose the columns of a set and read its labels.

    Args:
        shards: by split.
        asked: the columns of pictures and labels that the recipe names.
        published: the classes of a published set, in label order.

    Raises:
        DataError: the shards can be understood in several ways, contradict one another, have too many rows, or are
            damaged.
    """
    check_rows([path for paths in shards.values() for path in paths])
    first = shards["train"][0]
    schema = open_shard(first).schema_arrow
    columns = choose_columns(
        first, schema, asked, described(first, schema), functools.partial(all_different, shards["train"])
    )
    for paths in shards.values():
        for path in paths:
            _check_same_columns(path, first, columns, schema)
    return columns, read_classes(shards, columns.label, published)


def _check_same_columns(path: Path, first: Path, columns: Columns, expected: pyarrow.Schema) -> None:
    """Refuse a shard without the column of pictures, or with several of labels."""
    schema = open_shard(path).schema_arrow
    if len(schema.get_all_field_indices(columns.image)) != 1:
        raise DataError(
            f"{path} has no column {columns.image}, which holds the pictures in {first}; write both files with one"
        )
    found, wanted = schema.field(columns.image).type, expected.field(columns.image).type
    if columns.image not in picture_columns(schema) or pyarrow.types.is_struct(found) != pyarrow.types.is_struct(
        wanted
    ):
        raise DataError(
            f"{path}: column {columns.image} is {found}, but {wanted} in {first}; expected pictures in both, alike"
        )
    if len(schema.get_all_field_indices(columns.label)) > 1:
        raise DataError(f"{path} holds two columns called {columns.label}; expected each name once")


def stream_pictures(shards: tuple[Path, ...], column: str) -> Iterator[Picture]:
    """Yield the pictures of all rows in order, one in memory at a time. Raises DataError."""
    for shard in shards:
        file = open_shard(shard)
        row = 0
        try:
            # A picture may be there once and stand in every row, so what a few rows take cannot be told from the size
            # of the file. One after the other, rows take 15 microseconds more each than hundreds at a time.
            for rows in file.iter_batches(batch_size=1, columns=[column], use_threads=False):
                for value in rows.column(0):
                    yield _picture(shard, row, value)
                    row += 1
        except (pyarrow.ArrowException, OSError, ValueError, LookupError) as error:
            raise DataError(
                f"{shard}: cannot be read from row {row} on ({first_line(error)}): the file is damaged; fetch it again"
            ) from error


def _picture(shard: Path, row: int, found: pyarrow.Scalar) -> Picture:
    where = f"{shard} row {row}"
    held = found["bytes"] if isinstance(found, pyarrow.StructScalar) and found.is_valid else found
    if isinstance(held, pyarrow.BinaryScalar) and held.is_valid:
        _check_size(where, held.as_buffer().size)
    value: bytes | dict[str, bytes | str | None] | None = found.as_py()
    if isinstance(value, bytes):
        return Picture(where, value)
    content, path = (value.get("bytes"), value.get("path")) if value else (None, None)
    if isinstance(content, bytes):
        return Picture(where, content)
    if isinstance(path, str) and "\0" not in path and os.path.isfile(shard.parent / path):
        return Picture(str(shard.parent / path), remedy=WITH_ITS_ROW)
    outside = f"names {path!r}, which is not there" if path else "is empty"
    raise DataError(f"{where} {outside}, expected an encoded picture or a path relative to the shard")


def _check_size(where: str, size: int) -> None:
    limit = encoded_limit()
    if size > limit:
        raise DataError(
            f"{where} holds a picture of {size:,} bytes, more than the {limit:,} that are read, and takes "
            f"{PIXELS_VARIABLE}={pixel_limit() + -(-(size - limit) // 4)}; set this environment variable so high, "
            f"or {WITH_ITS_ROW}"
        )


def _outside_files(shard: Path, column: str) -> list[str]:
    """Return the files that rows without bytes refer to; they are part of the content."""
    with naming_files(shard):
        return _named_outside(shard, column)


def _named_outside(shard: Path, column: str) -> list[str]:
    file = open_shard(shard)
    kind = file.schema_arrow.field(column).type
    if not pyarrow.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return []
    # Paths are often kept beside the bytes. What a file says of its empty values is not asked: damaged, it would end
    # the process inside of pyarrow.
    listed: dict[Path, set[str]] = {}
    for path in _paths(file, column):
        if not isinstance(path, str) or "\0" in path:
            continue
        folder, name = (shard.parent / path).parent, os.path.basename(path)
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(folder))
            except OSError:  # a folder of the machine on which the shard was made
                listed[folder] = set()
        if name in listed[folder]:
            return [picture.where for picture in stream_pictures((shard,), column) if picture.content is None]
    return []


def _paths(file: pyarrow.parquet.ParquetFile, column: str) -> Iterator[str | None]:
    """Yield the paths beside the pictures, each once among those that are read together."""
    name, groups = f"{column}.path", range(file.num_row_groups)
    place = [file.schema.column(number).path for number in range(len(file.schema))].index(name)
    # No path has more bytes than all of its row group, and a row group may name one path in every row.
    longest = max((file.metadata.row_group(group).column(place).total_uncompressed_size for group in groups), default=1)
    at_once = max(1, min(_PATHS_AT_ONCE, _PATH_BYTES_AT_ONCE // max(1, longest)))
    for rows in file.iter_batches(batch_size=at_once, columns=[name], use_threads=False):
        yield from pyarrow.compute.unique(pyarrow.compute.struct_field(rows.column(0), "path")).to_pylist()


def encoded_part(
    shards: tuple[Path, ...], column: str, labels: np.ndarray, shape: tuple[int, int, int] | None
) -> EncodedPart:
    """Return a split of these shards; `shape` is what every picture must have, if known."""
    return EncodedPart(labels=labels, pictures=functools.partial(stream_pictures, shards, column), shape=shape)


def source_files(shards: Shards, column: str) -> tuple[str, ...]:
    """Return all files that decide the content: the shards, and pictures that they only name."""
    paths = [path for split in sorted(shards) for path in shards[split]]
    return tuple(str(path) for path in paths) + tuple(name for path in paths for name in _outside_files(path, column))
