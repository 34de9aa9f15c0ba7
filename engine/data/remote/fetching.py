"""Files of a cloud URI on their way to this machine: several at once, into a folder that only one process writes to."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.data.remote.uris import Place, RemoteFile

_FETCHED_AT_ONCE = 8
_ENDING = ".fetched"


def download(place: Place, files: Sequence[RemoteFile], folder: Path, progress: Callable[[float], None]) -> list[bytes]:
    """Copy files of `place` into a local folder, several at once.

    Args:
        place: where they are.
        files: as `list_files` gave them.
        folder: where their copies go; made if it does not exist.
        progress: told the share of the bytes that is there, at most a hundred times.

    Returns:
        sha256 of each file as it was received.

    Raises:
        OSError, pyarrow.ArrowException: a file cannot be read or written, or has another size than was listed.
    """
    stop = threading.Event()

    def fetch(file: RemoteFile) -> bytes:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        written, digest = 0, hashlib.sha256()
        with target.open("xb") as copy:
            for block in place.blocks(file.name, stop):
                written += copy.write(block)
                digest.update(block)
                if written > file.size:
                    break
        if written != file.size:
            found = f"more than {file.size:,}" if written > file.size else f"{written:,}"
            raise OSError(f"{file.name} has {found} bytes, but was listed with {file.size:,}: it has just changed")
        return digest.digest()

    digests: list[bytes] = []
    total, done, told = sum(file.size for file in files), 0, 0
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        try:
            for file, digest in zip(files, pool.map(fetch, files), strict=True):
                digests.append(digest)
                done += file.size
                if total and 100 * done // total > told:
                    told = 100 * done // total
                    progress(done / total)
        except BaseException:
            # Those that are under way end at once.
            stop.set()
            raise
    return digests


@contextlib.contextmanager
def fetched_aside(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder` to fetch into; it is gone after the block, unless it was renamed there.

    What was left behind for the same folder by processes that were killed in such a block is removed first: each has
    locked its own, and the lock ends with the process, however that ends.

    Args:
        folder: that does not exist yet, or is replaced by what was fetched.

    Raises:
        OSError: the folder beside it cannot be made.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}{_ENDING}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.iterdir():
        process = left.name.removeprefix(f".{folder.name}.").removesuffix(_ENDING)
        if left.name == f".{folder.name}.{process}{_ENDING}" and process.isdecimal():
            _remove_unlocked(left)
    aside.mkdir()
    descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Not every file system has locks; where there are none, nobody removes what is left. Until then, another
        # process may take the empty folder for one that was left.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield aside
    finally:
        os.close(descriptor)
        shutil.rmtree(aside, ignore_errors=True)


def _remove_unlocked(folder: Path) -> None:
    """Remove a folder that no process has locked; a link in its place, or what may not be removed, stays."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # another process fetches into it, or the file system has no locks
    finally:
        os.close(descriptor)
