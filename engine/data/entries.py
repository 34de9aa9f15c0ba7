"""Digests of cache entries, compared when an entry is opened.

sha256, because the processors of the last years have instructions for it (its time: docs/results/data-pipeline.md)
and because it is the digest of everything else that is kept. Files are digested in blocks, by several threads. A
process looks at an entry again only when a file has another size, time or inode.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from engine.data.threads import num_threads
from engine.errors import DataError
from engine.reading import checked, first_line, read_json

MANIFEST = "manifest.json"
CHECKED_WHEN_READ = "checked_when_read"
"""Field of a manifest that names the files whose content is checked piece by piece when it is read."""

_BLOCK_BYTES = 64 << 20
_READ_AT_ONCE = 1 << 20
_SHOWN_FROM_BYTES = 1 << 30
_SELF = "manifest_sha256"


@dataclass(frozen=True)
class Entry:
    """One complete entry."""

    folder: Path
    manifest: dict[str, Any]


class DamagedEntry(DataError):
    """An entry is not what was once written; the message says how, to be put behind the entry's name."""


class _Sealed(TypedDict):
    files: dict[str, int]
    sha256: dict[str, str]


_SEALED = TypeAdapter(_Sealed)
_verified: dict[str, tuple[Any, ...]] = {}


def seal(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with sizes and digests of all files in a folder, and a digest of its own."""
    names = sorted(path.name for path in folder.iterdir())
    later = manifest.get(CHECKED_WHEN_READ, [])
    with ThreadPoolExecutor(num_threads()) as pool:
        sealed = {
            **manifest,
            "files": {name: (folder / name).stat().st_size for name in names},
            "sha256": {name: _file_digest(folder / name, pool) for name in names if name not in later},
        }
    return {**sealed, _SELF: _manifest_digest(sealed)}


def open_entry(folder: Path, told: Callable[[float], None]) -> Entry | None:
    """Return the entry in a folder; None where there is none.

    Args:
        folder: the entry's folder.
        told: the share of the bytes that is compared, for entries of more than a GiB.

    Raises:
        DamagedEntry: a file is missing, a link, or has another size or other bytes than were written.
        DataError: a file may not be read.
    """
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        raise DamagedEntry("is no folder of its own, but a link or a file")
    manifest = _read_manifest(folder / MANIFEST)
    state = tuple(_state(folder / name, size) for name, size in manifest["files"].items())
    seen = (manifest[_SELF], *state)
    if _verified.get(str(folder)) != seen:
        _compare(folder, manifest, told)
        _verified[str(folder)] = seen
    return Entry(folder, manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = read_json(path, DataError, follow_links=False)
        if isinstance(manifest, dict) and "files" in manifest and _SELF not in manifest:
            raise DamagedEntry("was written by an earlier version, without digests of its files")
        sealed = checked(manifest, _SEALED, path, DataError)
    except DamagedEntry:
        raise
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise DamagedEntry(f"is damaged ({first_line(error)})") from error
    if manifest[_SELF] != _manifest_digest({name: value for name, value in manifest.items() if name != _SELF}):
        raise DamagedEntry(f"is damaged ({MANIFEST} holds other values than were written)")
    later = set(sealed["files"]) - set(sealed["sha256"])
    if not all(_is_plain(name) for name in sealed["files"]) or not later <= set(manifest.get(CHECKED_WHEN_READ, ())):
        raise DamagedEntry(f"is damaged ({MANIFEST} lists files that are none of its own, or without a digest)")
    return dict(manifest)


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name


def _manifest_digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode(errors="surrogatepass")).hexdigest()


def _state(path: Path, size: int) -> tuple[str, int, int, int]:
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise DamagedEntry(f"is damaged ({path.name} is missing)") from error
    if not stat.S_ISREG(found.st_mode):
        raise DamagedEntry(f"is damaged ({path.name} is no regular file)")
    if found.st_size != size:
        raise DamagedEntry(f"is damaged ({path.name} has {found.st_size:,} bytes, expected {size:,})")
    return path.name, found.st_size, found.st_mtime_ns, found.st_ino


def _compare(folder: Path, manifest: dict[str, Any], told: Callable[[float], None]) -> None:
    sizes, done = manifest["files"], 0
    total = sum(sizes[name] for name in manifest["sha256"] if name in sizes)
    with ThreadPoolExecutor(num_threads()) as pool:
        for name, expected in manifest["sha256"].items():
            if name not in sizes or _file_digest(folder / name, pool) != expected:
                raise DamagedEntry(f"is damaged ({name} holds other bytes than were written)")
            done += sizes[name]
            if total >= _SHOWN_FROM_BYTES:
                told(done / total)


def _file_digest(path: Path, pool: ThreadPoolExecutor) -> str:
    """Return a sha256 of the sha256 of each block of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        starts = range(0, os.fstat(descriptor).st_size, _BLOCK_BYTES)
        blocks: Iterable[bytes] = pool.map(lambda start: _block_digest(descriptor, start), starts)
        return hashlib.sha256(b"".join(blocks)).hexdigest()
    finally:
        os.close(descriptor)


def _block_digest(descriptor: int, start: int) -> bytes:
    digest = hashlib.sha256()
    for offset in range(start, start + _BLOCK_BYTES, _READ_AT_ONCE):
        content = os.pread(descriptor, _READ_AT_ONCE, offset)
        digest.update(content)
        if len(content) < _READ_AT_ONCE:
            break
    return digest.digest()
