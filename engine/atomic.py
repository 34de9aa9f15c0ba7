"""Atomic writes: a file appears whole or not at all, whatever happens: a crash, a full disk, a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError, NotWritten

_AGAIN = " and give the same command again: a training goes on from its newest complete checkpoint"

FREE_SPACE = f"; free some space{_AGAIN}"
"""What the user of a disk that is full can do once the command has ended."""

MAKE_WRITABLE = f"; make it writable{_AGAIN}"
"""The same, of a disk that takes nothing for another reason."""

_LEFT = re.compile(r"\..+\.(\d{1,10})\.tmp", re.ASCII | re.DOTALL)

# Of the times of processes, which Linux counts from its start in hundredths of a second, and of those of files.
_COARSE_SECONDS = 2.0

UNLOCKED_SECONDS = 3600.0
"""For `remove_unfinished` where no lock keeps processes of other machines out: no file takes so long to be written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the place of `path` when the block ends without an error.

    After an error `path` is what it was before, and the temporary file is gone.

    Raises:
        OSError: as the operating system raises it, for by-products and for what is written elsewhere than into a run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A link that somebody has put in its place would lead the writer out of the folder.
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        # A disk that has become read-only refuses this, too, and would hide why.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, seconds: float = 0.0) -> None:
    """Remove what processes that were killed inside of `replacing` left in a folder, as far as that is possible.

    What a process that lives may still be writing stays.

    Args:
        folder: need not exist.
        seconds: for how long nothing was written to what is removed; `UNLOCKED_SECONDS` where the folder is not this
            process's own, because a process of another machine may be at it, and nothing is known of that.
    """
    # Nobody wants what is left, so nothing ends because it stays.
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
    for found in filter(None, map(_LEFT.fullmatch, names)):
        left = folder / found[0]
        with contextlib.suppress(OSError):
            written = left.lstat().st_mtime
            # A folder of such a name is none of ours, and stays because it cannot be unlinked.
            if time.time() - written >= seconds and not _may_write(int(found[1]), written):
                left.unlink()


def _may_write(number: int, written: float) -> bool:
    """Tell whether a process of this machine lives that can have written a file at a time, in unix seconds."""
    import psutil

    try:
        process = psutil.Process(number)
        # The number of one that was killed may be another's by now, in a container that starts again nearly always.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + _COARSE_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; a symbolic link in its place is not followed.

    Raises:
        NotWritten: the disk is full or the file cannot be written; what was written of it is removed.
    """
    try:
        _write(path, content)
    except OSError as error:
        # A disk that has become read-only refuses this, too, and would hide why.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise write_error(path, error) from error


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place; the folder is made if it does not exist.

    Raises:
        NotWritten: the disk is full or the file, or its folder, cannot be written; `path` is what it was before.
    """
    try:
        with replacing(path) as aside:
            _write(aside, content)
    except OSError as error:
        raise write_error(path, error) from error


def open_lock(path: Path, error: type[InputError]) -> IO[str]:
    """Open, or make with mode 0600, the file that a process locks while a folder is its own; nothing is cut off.

    Args:
        path: the file; no symbolic link is followed.
        error: what is raised.

    Returns:
        the file for reading and writing; programs that this process starts do not inherit it.

    Raises:
        InputError: of the class `error`: it is no regular file, or may not be opened.
    """
    remedy = "remove it, and give the same command again"
    if path.is_symlink():
        raise error(f"{path}: is a symbolic link; expected a file of the folder's own; {remedy}")
    try:
        # Without waiting: a pipe in its place would be waited for.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError as cause:
        why = f"could not be opened for writing: {cause.strerror or cause}"
        raise error(f"{path}: {why}; make it writable, or give another folder") from cause
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path}: is no regular file; expected an empty file, or one that says who locks it; {remedy}")
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="backslashreplace")


def open_appending(path: Path) -> IO[str]:
    """Open a text file to write at its end; a symbolic link in its place is not followed.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8", errors="backslashreplace")


class AppendedFile:
    """A file that grows, and keeps what the disk did not take until it does.

    Args:
        file: open for appending; closed with this one.
    """

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._waiting = bytearray()

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._file.closed

    def write(self, content: bytes) -> None:
        """Hand the operating system what is left of earlier calls, and some more.

        Raises:
            OSError: it did not take all of that; the rest is kept for the next call.
        """
        self._waiting += content
        while self._waiting:
            taken = os.write(self._file.fileno(), self._waiting)
            del self._waiting[:taken]

    def close(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: as `write`; the file stays open.
        """
        self.write(b"")
        self._file.close()


def write_error(path: Path, error: OSError) -> NotWritten:
    """Return what to tell a user whose file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotWritten(f"{path}: the disk is full{FREE_SPACE}")
    return NotWritten(f"{path}: could not be written: {error.strerror or error}{MAKE_WRITABLE}")
