"""Copy of a data set under a cloud URI in a folder on this machine.

Every file is fetched once, into REMOTE/NAME-DIGEST in the cache folder; the digest covers the URI and the name, size
and time of each file, so that a source that has changed is fetched anew. Copies are complete or absent: they are
written under a temporary name, then renamed. Like the cache's entries they are never deleted, so a copy that is not
needed any more is removed by hand.
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
from contextlib import suppress
from pathlib import Path

from engine.data.cache import cache_root, free_bytes, plain_folder, remove
from engine.data.parts import Progress
from engine.data.uris import (
    Place,
    RemoteFile,
    connect,
    download,
    first_words,
    list_files,
    storage_errors,
    without_secret,
)
from engine.errors import DataError

_FOLDER = "remote"
_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 7 * 24 * 3600


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
    if not _complete(target, files):
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
        _fetch(place, files, uri, target, progress)
    return target


def _complete(folder: Path, files: Sequence[RemoteFile]) -> bool:
    """Tell whether all files are there and have their sizes, in case somebody has tidied the cache folder."""
    if folder.is_symlink():
        return False
    try:
        found = [(folder / file.name).lstat() for file in files]
    except OSError:
        return False
    sizes = [state.st_size if stat.S_ISREG(state.st_mode) else -1 for state in found]
    return sizes == [file.size for file in files]


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


def _fetch(place: Place, files: Sequence[RemoteFile], uri: str, target: Path, progress: Progress) -> None:
    unfinished = target.with_name(f"{_UNFINISHED}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with storage_errors("data.root", uri, DataError):
            try:
                download(place, files, unfinished, lambda share: progress("fetching the data set", share))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _no_room(target.parent, uri, files) from error
                raise
            if os.path.lexists(target) and not _complete(target, files):
                remove(target)
            try:
                unfinished.rename(target)
            except OSError:
                # Another process was faster.
                if not _complete(target, files):
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
