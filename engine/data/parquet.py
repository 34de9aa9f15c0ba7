"""How are pictures read from Parquet shards in the layout of the Hugging Face hub?"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from engine.data.checks import check_labels, missing_set
from engine.data.parts import EncodedPart, Found, Loaded, Picture
from engine.errors import DataError

SPLIT_OF_WORD = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
Shards = dict[str, tuple[Path, ...]]

_FILE_NAME = re.compile(r"(train|validation|valid|val|test)(?:[-_.].*)?\.parquet")
_NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.parquet")
_ROWS_AT_ONCE = 256


def find_shards(root: Path) -> Shards:
    """Return the shards of each split in `root` or in one folder directly below it; empty when there are none.

    Raises:
        DataError: several folders hold a training split, or a numbered shard is missing.
    """
    if not root.is_dir():
        return {}
    found = {folder: _shards_in(folder) for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir()))}
    with_train = [folder for folder, shards in found.items() if "train" in shards]
    if not with_train:
        return {}
    if len(with_train) > 1:
        raise DataError(
            f"several folders hold train*.parquet: {', '.join(map(str, with_train))}; set data.root to one of them"
        )
    return found[with_train[0]]


def _shards_in(folder: Path) -> Shards:
    by_split: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE_NAME.fullmatch(path.name)
        if match and path.is_file():
            by_split.setdefault(SPLIT_OF_WORD[match[1]], []).append(path)
    for paths in by_split.values():
        _check_complete(paths)
    return {split: tuple(paths) for split, paths in by_split.items()}


def _check_complete(paths: list[Path]) -> None:
    series: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        match = _NUMBERED.fullmatch(path.name)
        if match:
            series.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    folder = paths[0].parent
    if series and (len(series) > 1 or len(paths) != sum(map(len, series.values()))):
        names = ", ".join(path.name for path in paths)
        raise DataError(f"{folder} holds several versions of one split: {names}; keep the files of one version")
    for (prefix, count), numbers in series.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise DataError(
                f"{folder}: found {len(numbers)} of {count} shards, {prefix}-{missing[0]:05d}-of-{count:05d}.parquet "
                f"is missing; fetch the missing files"
            )


def _open(shard: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(shard)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{shard} ({shard.stat().st_size:,} bytes) cannot be read as Parquet ({error}): "
            f"the copy is incomplete or damaged; fetch it again"
        ) from error


def _image_column(shard: Path, schema: pyarrow.Schema) -> str:
    structs = [field.name for field in schema if _holds_bytes(field.type)]
    binaries = [field.name for field in schema if _is_binary(field.type)]
    if structs:
        return structs[0]
    if len(binaries) == 1:
        return binaries[0]
    raise DataError(
        f"{shard} has no column of pictures: expected a struct with a `bytes` child or a single binary column, "
        f"found {_columns(schema)}"
    )


def _is_binary(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_struct(kind) and any(child.name == "bytes" and _is_binary(child.type) for child in kind)


def _label_column(shard: Path, schema: pyarrow.Schema, asked: str | None) -> str:
    integers = [field.name for field in schema if pyarrow.types.is_integer(field.type)]
    if asked is not None:
        if asked not in integers:
            raise DataError(
                f"data.label_column={asked}, but {shard} has no such column of integers: {_columns(schema)}"
            )
        return asked
    for name in ("label", "fine_label"):
        if name in integers:
            return name
    if len(integers) == 1:
        return integers[0]
    raise DataError(
        f"{shard}: cannot tell which column holds the label, found {_columns(schema)}; set data.label_column"
    )


def _columns(schema: pyarrow.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def class_names(shard: Path, label_column: str | None) -> tuple[str, ...] | None:
    """Return the names of the classes from the shard's metadata, in label order; None when it holds none."""
    schema = _open(shard).schema_arrow
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = described[_label_column(shard, schema, label_column)]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(str(name) for name in names)


def read_labels(shards: tuple[Path, ...], label_column: str | None) -> np.ndarray:
    """Return the labels of all rows, int64 [N], unchecked. Raises DataError."""
    labels = []
    for shard in shards:
        file = _open(shard)
        name = _label_column(shard, file.schema_arrow, label_column)
        try:
            column = file.read(columns=[name]).column(0)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{shard}: column {name} cannot be read ({error}): the file is damaged") from error
        if column.null_count:
            raise DataError(f"{shard}: {column.null_count:,} rows of column {name} are empty, expected a label in each")
        labels.append(column.to_numpy().astype(np.int64))
    return np.concatenate(labels)


def stream_pictures(shards: tuple[Path, ...]) -> Iterator[Picture]:
    """Yield the pictures of all rows in order, a few hundred rows in memory at a time. Raises DataError."""
    for shard in shards:
        file = _open(shard)
        column = _image_column(shard, file.schema_arrow)
        row = 0
        try:
            for rows in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                for value in rows.column(0):
                    yield _picture(shard, row, value.as_py())
                    row += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{shard}: cannot be read from row {row} on ({error}): the file is damaged") from error


def _picture(shard: Path, row: int, value: bytes | dict[str, bytes | str | None] | None) -> Picture:
    where = f"{shard} row {row}"
    if isinstance(value, bytes):
        return Picture(where, value)
    content, path = (value.get("bytes"), value.get("path")) if value else (None, None)
    if isinstance(content, bytes):
        return Picture(where, content)
    if isinstance(path, str) and (shard.parent / path).is_file():
        return Picture(str(shard.parent / path))
    outside = f"names {path!r}, which is not there" if path else "is empty"
    raise DataError(f"{where} {outside}, expected an encoded picture or a path relative to the shard")


def _outside_files(shard: Path) -> list[str]:
    """Return the files that rows without bytes refer to; they are part of the content."""
    file = _open(shard)
    column = _image_column(shard, file.schema_arrow)
    for group in range(file.num_row_groups):
        described = [file.metadata.row_group(group).column(index) for index in range(file.metadata.num_columns)]
        for chunk in described:
            known = chunk.statistics is not None and chunk.statistics.has_null_count
            if chunk.path_in_schema == f"{column}.bytes" and not (known and chunk.statistics.null_count == 0):
                pictures = stream_pictures((shard,))
                return [picture.where for picture in pictures if picture.content is None]
    return []


def encoded_part(shards: tuple[Path, ...], labels: np.ndarray, shape: tuple[int, int, int] | None) -> EncodedPart:
    """Return a split of these shards; `shape` is what every picture must have, if known."""
    return EncodedPart(labels=labels, pictures=functools.partial(stream_pictures, shards), shape=shape)


def source_files(shards: Shards) -> tuple[str, ...]:
    """Return all files that decide the content: the shards, and pictures that they only name."""
    paths = [path for split in sorted(shards) for path in shards[split]]
    return tuple(str(path) for path in paths) + tuple(name for path in paths for name in _outside_files(path))


def find_parquet(root: Path, label_column: str | None) -> Found:
    """Find a user's own shards: train*.parquet and test*, validation* or valid*.

    Raises:
        DataError: shards are missing or there is nothing to test on.
    """
    shards = find_shards(root)
    if not shards:
        raise missing_set("Parquet data set", root, ["train*.parquet, also in one folder below it"], False)
    if len(shards) == 1:
        folder = shards["train"][0].parent
        raise DataError(f"{folder} holds train*.parquet only, expected test*, validation* or valid*.parquet beside it")

    def load() -> Loaded:
        labels = {split: read_labels(paths, label_column) for split, paths in shards.items()}
        names = class_names(shards["train"][0], label_column)
        if (labels.get("test", np.zeros(1)) == -1).all():
            del labels["test"]  # published without labels, as ImageNet's is
        if "test" not in labels:
            if "validation" not in labels:
                raise DataError(
                    f"{shards['test'][0]}: every label is -1, and there is no validation*.parquet to test on"
                )
            labels["test"] = labels.pop("validation")
            shards["test"] = shards["validation"]
        names = names if names is not None else _numbered_names(shards["train"][0], labels["train"])
        for split, found in labels.items():
            check_labels(", ".join(path.name for path in shards[split][:3]), found, len(names))
        parts = {split: encoded_part(shards[split], found, None) for split, found in labels.items()}
        return Loaded(class_names=names, parts=dict(parts))

    rows = sum(_open(path).metadata.num_rows for paths in shards.values() for path in paths)
    return Found(root=str(root), files=source_files(shards), load=load, num_pictures=rows)


def _numbered_names(shard: Path, labels: np.ndarray) -> tuple[str, ...]:
    present = np.unique(labels)
    if len(present) == 0 or not np.array_equal(present, np.arange(len(present))):
        shown = ", ".join(map(str, present[:10].tolist()))
        raise DataError(
            f"{shard.parent}: the training labels are {shown}{', ...' if len(present) > 10 else ''}; expected 0 to "
            f"C - 1 with an image in every class; renumber them, or store the class names in the `huggingface` metadata"
        )
    return tuple(str(label) for label in present)
