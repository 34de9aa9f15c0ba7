"""How a file appears whole or not at all, whatever happens: a crash, a full disk, a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the place of `path` when the block ends without an error.

    After an error `path` is what it was before, and the temporary file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed inside of `replacing` left in a folder that only this process writes to."""
    for left in folder.glob(".*.*.tmp"):
        if left.name.split(".")[-2].isdigit() and not left.is_dir():
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk.

    Raises:
        RunError: the disk is full or the file cannot be written; what was written of it is removed.
    """
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise write_error(path, error) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place."""
    with replacing(path) as aside:
        write_synced(aside, content)


def write_error(path: Path, error: OSError) -> RunError:
    """Return what to tell a user whose file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"{path}: the disk is full; free some space and give the same command again: it goes on from the newest "
            "complete checkpoint"
        )
    return RunError(f"{path}: could not be written: {error.strerror or error}")
