"""Where are decoded data sets kept, and when is a kept one used again?

An entry is a folder named by a sha256 of what decides its content: the bytes of the source files, how they are
decoded, and the version of this format. A small index leads from paths, sizes and times of the source files to the
entry, so that they are read once only. Entries are complete or absent: they are written under a temporary name,
flushed to the disk, then renamed. Nothing is ever deleted but damaged entries and what a killed run left behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.parts import Found, Progress
from engine.data.threads import num_threads
from engine.errors import DataError
from engine.paths import absolute

VERSION = 1
_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 24 * 3600
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One complete entry."""

    folder: Path
    manifest: dict[str, Any]


def cache_root() -> Path:
    """Return $LOCAL_LEARNING_CACHE, else $XDG_CACHE_HOME/local-learning, else ~/.cache/local-learning."""
    own = os.environ.get("LOCAL_LEARNING_CACHE")
    if own:
        return absolute(own, "LOCAL_LEARNING_CACHE", DataError)
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared:
        return absolute(shared, "XDG_CACHE_HOME", DataError) / "local-learning"
    return absolute("~/.cache", "LOCAL_LEARNING_CACHE", DataError) / "local-learning"


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
        shortcut = root / "index" / f"{_stat_fingerprint(found, parameters)}.json"
        known = _read_json(shortcut)
        entry = _complete(root / str(known["entry"])) if known else None
        if entry is None:
            key = _content_key(found, parameters, progress)
            entry = _complete(root / key) or _build(root, key, build)
            _write_json(shortcut, {"entry": key})
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


def _stat_fingerprint(found: Found, parameters: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, parameters], sort_keys=True).encode())
    for path in found.files:
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
    with open(path, "rb") as file:
        while block := file.read(_READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _complete(folder: Path) -> Entry | None:
    """Return the entry in a folder when its manifest is readable and all its files have their sizes."""
    manifest = _read_json(folder / _MANIFEST)
    if manifest is None:
        return None
    try:
        complete = all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, KeyError, AttributeError):
        return None
    return Entry(folder, manifest) if complete else None


def _build(root: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
    _remove_abandoned(root)
    unfinished = root / f"{_UNFINISHED}{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
    unfinished.mkdir()
    try:
        manifest = build(unfinished)
        written = sorted(path for path in unfinished.iterdir())
        for path in written:
            _flush(path)
        manifest["files"] = {path.name: path.stat().st_size for path in written}
        _write_json(unfinished / _MANIFEST, manifest)
        _flush(unfinished)
        target = root / key
        # Two passes: the first may meet a damaged entry, or another process that was faster.
        for _ in range(2):
            try:
                unfinished.rename(target)
                break
            except OSError:
                if not target.is_dir():
                    raise
                if _complete(target):
                    break
                damaged = root / f"{_UNFINISHED}damaged-{secrets.token_hex(4)}"
                target.rename(damaged)
                shutil.rmtree(damaged, ignore_errors=True)
        _flush(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    entry = _complete(target)
    if entry is None:
        raise DataError(f"the cache entry {target} was damaged while it was written; remove it and start again")
    return entry


def _remove_abandoned(root: Path) -> None:
    """Remove what killed runs left behind; a day is longer than any build takes."""
    for path in root.glob(f"{_UNFINISHED}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    temporary.write_text(json.dumps(content, indent=1))
    _flush(temporary)
    temporary.replace(path)
