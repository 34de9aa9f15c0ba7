"""Parquet shards of each split: all there, once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from engine.data.class_names import printable
from engine.data.readers.boundary import is_folder
from engine.errors import DataError

SPLIT_OF_WORD = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
Shards = dict[str, tuple[Path, ...]]

# Behind the numbers there may be a fingerprint, as older versions of the hub's library put it.
_OF = re.compile(
    r"(?P<prefix>.*?)[-_.](?P<number>\d{1,9})[-_.]?of[-_.]?(?P<count>\d{1,9})(?P<rest>\D.*)?", re.IGNORECASE
)
_NUMBERED = re.compile(r"(?P<prefix>.*?)[-_.]?(?P<number>\d{1,9})")
_MOST_NAMED = 6


def find_shards(root: Path, words: Mapping[str, str] = SPLIT_OF_WORD) -> Shards:
    """Return the shards of each split in `root` or in one folder directly below it; empty when there are none.

    Args:
        root: where to look.
        words: the split of each word that the files' names begin with, train among them.

    Raises:
        DataError: several folders hold a training split, or a split is not one whole series of shards.
    """
    if not is_folder(root):
        return {}
    folders = sorted(path for path in root.iterdir() if not path.name.startswith(".") and is_folder(path))
    found = {root: _shards_in(root, words)}
    closed: PermissionError | None = None
    for folder in folders:
        try:
            found[folder] = _shards_in(folder, words)
        except PermissionError as error:
            closed = error
    with_train = [folder for folder, shards in found.items() if "train" in shards]
    if not with_train:
        # They may lie where this user may not look; a closed folder beside them is no matter.
        if closed is not None:
            raise closed
        return {}
    if len(with_train) > 1:
        raise DataError(
            f"several folders hold train*.parquet: {', '.join(map(str, with_train))}; set data.root to one of them"
        )
    chosen = found[with_train[0]]
    # The training shards come first: theirs are the columns and the order of the classes.
    return {split: _complete(chosen[split]) for split in dict.fromkeys(words.values()) if split in chosen}


def _shards_in(folder: Path, words: Mapping[str, str]) -> dict[str, list[Path]]:
    by_split: dict[str, list[Path]] = {}
    name = re.compile(rf"({'|'.join(words)})(?:[-_.].*)?\.parquet", re.IGNORECASE)
    for path in sorted(folder.iterdir()):
        match = name.fullmatch(path.name)
        if not match:
            continue
        if path.is_dir():
            raise DataError(
                f"{path} is a folder, as Spark and Dask write one; move the parts in it to {folder}, named like "
                f"{match[1]}-00000-of-00002.parquet, and the folder elsewhere"
            )
        if not path.is_file():
            what = "a symbolic link to what is not there" if path.is_symlink() and not path.exists() else "no file"
            raise DataError(f"{path} is called like a Parquet shard, but is {what}; bring back the file, or remove it")
        by_split.setdefault(words[match[1].lower()], []).append(path)
    return by_split


def _complete(paths: list[Path]) -> tuple[Path, ...]:
    """Return the shards of a split in order; raises DataError unless they are one series without gap and double."""
    if len(paths) == 1 and not _OF.fullmatch(paths[0].stem):
        return tuple(paths)
    matches = [_OF.fullmatch(path.stem) for path in paths]
    counted = [match for match in matches if match is not None]
    numbered = [match for match in (_NUMBERED.fullmatch(path.stem) for path in paths) if match is not None]
    if len(counted) == len(paths):
        found = counted
        series = {(match["prefix"], int(match["count"])) for match in found}
    elif counted or len(numbered) < len(paths):
        raise _several_versions(paths)
    else:
        found = numbered
        series = {(match["prefix"], 0) for match in found}
    numbers = [int(match["number"]) for match in found]
    if len(series) > 1 or len(set(numbers)) < len(numbers):
        raise _several_versions(paths)
    ((prefix, count),) = series
    _check_numbers(paths, prefix, numbers, count, len(found[0]["number"]))
    # In the order of names, as ever: another one would be another set to runs and lists of indices that there are.
    return tuple(paths)


def _check_numbers(paths: list[Path], prefix: str, numbers: list[int], count: int, width: int) -> None:
    folder = paths[0].parent
    if count and max(numbers) >= count:
        raise DataError(
            f"{folder}: the shard {prefix} with number {max(numbers)} of {count} is there, expected 0 to {count - 1}; "
            f"fetch the files again"
        )
    # A series without a count may begin with 0 or 1.
    first = 0 if count or 0 in numbers else 1
    missing = next(number for number in range(first, first + len(numbers) + 1) if number not in set(numbers))
    if count and len(numbers) < count:
        raise DataError(
            f"{folder}: found {len(numbers)} of {count} shards, {prefix}-{missing:05d}-of-{count:05d}.parquet "
            f"is missing; fetch the missing files"
        )
    if not count and missing < max(numbers):
        raise DataError(
            f"{folder}: found the shards {_listed(paths)}, but none with number {missing:0{width}d}; fetch the missing "
            f"files, or number those that are there without a gap"
        )


def _several_versions(paths: list[Path]) -> DataError:
    return DataError(
        f"{paths[0].parent} holds several versions of one split, or files that are no numbered series: "
        f"{_listed(paths)}; keep the files of one version, or name the parts of one split like "
        f"train-00000-of-00002.parquet"
    )


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(printable(path.name) for path in paths[:_MOST_NAMED]) + more
