"""Cache of decoded data sets.

An entry is a folder named by a sha256 of what decides its content: the bytes of the source files, how they are
decoded, and the version of this format. A small index leads from paths, sizes and times of the source files to the
entry, so that they are read once only. Entries are complete or absent: they are written under a temporary name,
flushed to the disk, then renamed. Nothing is ever deleted but damaged entries, which are built again, and what a
killed run left behind. No link below the cache's folder is followed.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.data.entries import MANIFEST, DamagedEntry, Entry, open_entry, seal
from engine.data.parts import Found, Progress
from engine.data.pictures.findings import Findings
from engine.data.threads import num_threads
from engine.errors import DataError
from engine.paths import absolute
from engine.reading import naming, read_json

VERSION = 1
_KEY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 24 * 3600
_READ_AT_ONCE = 1 << 20
_NOTE_BYTES = 1 << 12


def cache_root() -> Path:
    """Return $LOCAL_LEARNING_CACHE, else $XDG_CACHE_HOME/local-learning, else ~/.cache/local-learning; absolute.

    Raises:
        DataError: the variable holds no path, or none is set and there is no home folder.
    """
    own = os.environ.get("LOCAL_LEARNING_CACHE")
    if own:
        return absolute(own, "LOCAL_LEARNING_CACHE", DataError)
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared:
        return absolute(shared, "XDG_CACHE_HOME", DataError) / "local-learning"
    try:
        return absolute("~/.cache", "LOCAL_LEARNING_CACHE", DataError) / "local-learning"
    except DataError as error:
        raise DataError("there is no home folder for the cache; set LOCAL_LEARNING_CACHE to a folder") from error


def plain_folder(folder: Path) -> None:
    """Make a folder inside the cache, which no link may lead out of. Raises DataError, OSError."""
    if folder.is_symlink():
        raise DataError(f"{folder}: is a symbolic link, and the cache follows none; remove the link")
    folder.mkdir(parents=True, exist_ok=True)


def cached(
    found: Found, parameters: dict[str, Any], build: Callable[[Path], dict[str, Any]], progress: Progress
) -> Entry:
    """Return the entry of these files, decoded in this way; build it when it is absent or damaged.

    Args:
        found: the source files.
        parameters: how they are decoded; plain JSON values.
        build: writes the files of the entry into an empty folder, and returns what its manifest shall hold.
        progress: told while the source files are read.

    Raises:
        DataError: a source file or the cache cannot be read or written, or the disk is full.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        plain_folder(root / "index")
        shortcut = root / "index" / f"{stat_fingerprint(found, parameters)}.json"
        known = _known_key(shortcut)
        entry = _whole(root / known, progress) if known else None
        if entry is None:
            key = _content_key(found, parameters, progress)
            entry = _whole(root / key, progress) if key != known else None
            entry = entry or _build(root, key, build, progress)
            write_note(shortcut, {"entry": key})
        Findings(entry.manifest.get("transparent", 0)).tell(progress)
        return entry
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(
                f"the disk of the cache {root} is full ({free_bytes(root):,} bytes free): make room, "
                f"or set LOCAL_LEARNING_CACHE to a folder on another disk"
            ) from error
        raise DataError(
            f"{error.filename or root}: {error.strerror or error}. The cache is {root}; "
            f"set LOCAL_LEARNING_CACHE to another folder if that one cannot be used"
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of an existing folder."""
    return shutil.disk_usage(folder).free


def check_room(folder: Path, needed: int) -> None:
    """Refuse to write more than fits on the disk of `folder`. Raises DataError."""
    free = free_bytes(folder)
    if free < needed:
        raise DataError(
            f"the decoded images need {needed:,} bytes, but the disk of the cache {cache_root()} has {free:,} free: "
            f"make room, set LOCAL_LEARNING_CACHE to a folder on another disk, or give a smaller data.image_size"
        )


def stat_fingerprint(found: Found, parameters: dict[str, Any]) -> str:
    """Return a sha256 of paths, sizes and times of the source files and of plain JSON values. Raises DataError."""
    digest = hashlib.sha256(json.dumps([VERSION, parameters], sort_keys=True).encode())
    for path in found.files:
        with naming(path, DataError):
            state = os.stat(path)
        digest.update(
            f"{os.path.abspath(path)}\x1f{state.st_size}\x1f{state.st_mtime_ns}\x1e".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def _content_key(found: Found, parameters: dict[str, Any], progress: Progress) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, parameters], sort_keys=True).encode())
    with ThreadPoolExecutor(num_threads()) as pool:
        for number, (path, content) in enumerate(zip(found.files, pool.map(_file_digest, found.files), strict=True)):
            name = os.path.relpath(path, found.root).replace(os.sep, "/")
            digest.update(f"{name}\x1f{content}\x1e".encode(errors="surrogateescape"))
            progress("reading the source files", (number + 1) / len(found.files))
    return digest.hexdigest()


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with naming(path, DataError), open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path}: is no regular file; expected a file with data in it")
        while block := file.read(_READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _known_key(shortcut: Path) -> str | None:
    """Return the name of the entry that the index gives; a damaged index costs reading the source files again."""
    known = read_note(shortcut)
    key = known.get("entry") if known else None
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def _whole(folder: Path, progress: Progress) -> Entry | None:
    """Return the entry in a folder; says why when it is there and cannot be used."""
    try:
        return open_entry(folder, lambda share: progress("comparing the kept images with their digests", share))
    except DamagedEntry as error:
        progress(f"the cache entry {folder} {error}; it was built again", None)
        return None


def _build(root: Path, key: str, build: Callable[[Path], dict[str, Any]], progress: Progress) -> Entry:
    _remove_abandoned(root)
    unfinished = root / f"{_UNFINISHED}{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
    unfinished.mkdir()
    try:
        manifest = build(unfinished)
        for path in unfinished.iterdir():
            _flush(path)
        write_note(unfinished / MANIFEST, seal(unfinished, manifest))
        _flush(unfinished)
        target = root / key
        # Two passes: the first may meet a damaged entry, or another process that was faster.
        for _ in range(2):
            try:
                unfinished.rename(target)
                break
            except OSError:
                if not os.path.lexists(target):
                    raise
                if _is_whole(target):
                    break
                damaged = root / f"{_UNFINISHED}damaged-{secrets.token_hex(4)}"
                target.rename(damaged)
                remove(damaged)
        _flush(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    entry = _whole(target, progress)
    if entry is None:
        raise DataError(f"the cache entry {target} was damaged while it was written; remove it and start again")
    return entry


def _is_whole(folder: Path) -> bool:
    try:
        return open_entry(folder, lambda share: None) is not None
    except DamagedEntry:
        return False


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; a link goes alone, and what it leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_abandoned(root: Path, names: str = f"{_UNFINISHED}*") -> None:
    """Remove what killed runs left behind; a day is longer than any build takes."""
    for path in root.glob(names):
        # Another process may remove it at the same time, and nothing fails because it stays.
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
                remove(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_note(path: Path) -> dict[str, Any] | None:
    """Return what `write_note` wrote; None where there is nothing that can be read."""
    try:
        content = read_json(path, DataError, limit=_NOTE_BYTES, follow_links=False)
    except DataError:
        return None
    return content if isinstance(content, dict) else None


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Write plain JSON values so that the file appears whole or not at all. Raises OSError."""
    write_whole(path, json.dumps(content, indent=1).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all; what killed runs left of others beside it is removed.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    _remove_abandoned(path.parent, ".*-*-*")
    # Several threads may write the same file.
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        _flush(temporary)
        if path.is_dir():
            remove(path)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
