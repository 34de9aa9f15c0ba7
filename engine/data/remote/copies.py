"""Copy of a data set under a cloud URI in a folder on this machine.

Every file is fetched once, into remote/NAME-DIGEST in the cache folder; the digest covers the URI and the name, size
and time of each file, so that a source that has changed is fetched anew. Copies are complete or absent: they are
written under a temporary name, then renamed. Like the cache's entries they are never deleted, so a copy that is not
needed any more is removed by hand.

A sha256 of every file as it was received is kept in remote_digests/NAME-DIGEST, 32 bytes each in the order of the
files' names. A process compares all files of a copy with theirs once, and again when one has another size, time or
inode; a copy of which a file has changed is fetched again. One without digests that can be of it, such as one that an
earlier version fetched, has them taken from it as it lies there, because nobody knows any more what was received.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from engine.data.cache import cache_root, free_bytes, plain_folder, remove, write_whole
from engine.data.parts import Progress
from engine.data.remote.fetching import download
from engine.data.remote.uris import Place, RemoteFile, connect, first_words, list_files, storage_errors, without_secret
from engine.data.threads import in_order, num_threads
from engine.errors import DataError
from engine.reading import open_regular, read_bytes

_FOLDER, _DIGESTS = "remote", "remote_digests"
_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 7 * 24 * 3600
_DIGEST_BYTES = 32
_READ_AT_ONCE = 1 << 20
_SHOWN_FROM_BYTES = 1 << 30
_verified: dict[str, str] = {}


def fetched(uri: str, progress: Progress) -> Path:
    """Return a local folder with all files below a URI, which are fetched unless they are there already.

    Args:
        uri: value of data.root, such as s3://BUCKET/FOLDER.
        progress: told while files are fetched.

    Raises:
        DataError: the URI or the files cannot be read, or there is no room for them.
    """
    with storage_errors("data.root", uri, DataError):
        place = connect(uri)
        files = list_files(place)
        if not files:
            raise FileNotFoundError("there are no files below this address")
    listed = json.dumps([uri, [[file.name, file.size, file.modified_ns] for file in files]])
    digest = hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()
    root = cache_root() / _FOLDER
    shown = re.sub(r"[^\w.=+ -]", "_", place.path.rpartition("/")[2])[:100]
    target = root / f"{shown or 'root'}-{digest[:16]}"
    state = _state(target, files)
    if state is None or not _is_as_received(target, files, state, progress, without_secret(uri)):
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            plain_folder(root)
            _remove_abandoned(root)
            if free_bytes(root) < sum(file.size for file in files):
                raise _no_room(root, uri, files)
        except OSError as error:
            raise DataError(
                f"{root}: cannot be written ({first_words(error)}), and the files of data.root={without_secret(uri)} "
                "are fetched into it; set LOCAL_LEARNING_CACHE to another folder"
            ) from error
        _fetch(place, files, uri, target, progress, state)
    return target


def _state(folder: Path, files: Sequence[RemoteFile]) -> str | None:
    """Return a sha256 of sizes, times and inodes; None unless all files are there and have their sizes.

    Somebody may have tidied the cache folder.
    """
    if folder.is_symlink():
        return None
    digest = hashlib.sha256()
    for file in files:
        try:
            found = (folder / file.name).lstat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
            return None
        digest.update(f"{found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
    return digest.hexdigest()


def _is_as_received(copy: Path, files: Sequence[RemoteFile], state: str, progress: Progress, source: str) -> bool:
    """Tell whether the files of a copy have their digests, and say which has not; keep those of a copy without."""
    if _verified.get(str(copy)) == state:
        return True
    kept = _kept_digests(copy, len(files))
    found: list[bytes] = []
    done, total = 0, sum(file.size for file in files)
    with ThreadPoolExecutor(num_threads()) as pool:
        for digest in in_order(lambda file: _file_digest(copy / file.name), files, pool):
            file = files[len(found)]
            if kept is not None and digest != kept[len(found)]:
                progress(
                    f"{copy / file.name} holds other bytes than were received from data.root={source}, or cannot be "
                    "read; all files are fetched again",
                    None,
                )
                return False
            found.append(digest)
            done += file.size
            if total >= _SHOWN_FROM_BYTES:
                progress("comparing the fetched files with their digests", done / total)
    if kept is None:
        # A cache that may only be read serves as it is.
        with suppress(OSError, DataError):
            _keep_digests(copy, found)
    _verified[str(copy)] = state
    return True


def _file_digest(path: Path) -> bytes:
    """Return the sha256 of a file; nothing where it cannot be read. Raises DataError: this user may not."""
    digest = hashlib.sha256()
    try:
        with open_regular(path, DataError, follow_links=False) as file:
            while block := file.read(_READ_AT_ONCE):
                digest.update(block)
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return b""
    return digest.digest()


def _kept_digests(copy: Path, number: int) -> list[bytes] | None:
    """Return the digests of a copy's files; None where there are none that can be of so many files."""
    try:
        held = read_bytes(_digests_of(copy), DataError, _DIGEST_BYTES * number, follow_links=False)
    except DataError:
        return None
    if len(held) != _DIGEST_BYTES * number:
        return None
    return [held[start : start + _DIGEST_BYTES] for start in range(0, len(held), _DIGEST_BYTES)]


def _keep_digests(copy: Path, digests: Sequence[bytes]) -> None:
    path = _digests_of(copy)
    plain_folder(path.parent)
    write_whole(path, b"".join(digests))


def _digests_of(copy: Path) -> Path:
    return cache_root() / _DIGESTS / copy.name


def _remove_abandoned(root: Path) -> None:
    """Remove what killed runs left behind; a week is longer than any fetch takes."""
    for path in root.glob(f"{_UNFINISHED}*"):
        # Another process may remove it at the same time.
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
                remove(path)


def _no_room(root: Path, uri: str, files: Sequence[RemoteFile]) -> DataError:
    needed = sum(file.size for file in files)
    return DataError(
        f"the files of data.root={without_secret(uri)} have {needed:,} bytes, but the disk of the cache {root} has "
        f"{free_bytes(root):,} free: make room, or set LOCAL_LEARNING_CACHE to a folder on another disk"
    )


def _fetch(
    place: Place, files: Sequence[RemoteFile], uri: str, target: Path, progress: Progress, damaged: str | None
) -> None:
    """Fetch the files in the place of a copy whose `_state` is `damaged`, or of none."""
    unfinished = target.with_name(f"{_UNFINISHED}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with storage_errors("data.root", uri, DataError):
            try:
                digests = download(place, files, unfinished, lambda share: progress("fetching the data set", share))
                _keep_digests(target, digests)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _no_room(target.parent, uri, files) from error
                raise
            if os.path.lexists(target) and _state(target, files) in (None, damaged):
                remove(target)
            try:
                unfinished.rename(target)
                _verified[str(target)] = _state(target, files) or ""
            except OSError:
                # Another process was faster.
                if _state(target, files) is None:
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
