"""Files of a run folder that belong in its mirror; none lands, or comes from, outside."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from pyarrow.fs import LocalFileSystem

from engine.checkpoints.manifests import read_manifest
from engine.data.remote.uris import Place
from engine.errors import RunError

CHECKPOINTS = "checkpoints"

Signature = tuple[int, int]
"""Size and time of change of a file, which tell whether it has changed since it was sent."""

Digests = dict[str, str]
"""sha256 of a checkpoint's files, by name; names are plain, so that no file lands outside of the copy."""


def other_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files of a run folder that belong to no checkpoint, and the links beside them, which stay where they
    are.
    """
    files, links = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] == CHECKPOINTS or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink():
            links.append(name.as_posix())
        elif path.is_file():
            files.append(name.as_posix())
    return files, links


def checkpoints_in(folder: Path, last: int | None = None) -> dict[str, Digests]:
    """Return the checkpoints of a run folder up to step `last` whose manifests can be read, the oldest first."""
    found = {}
    for name in checkpoints_of(path.name for path in (folder / CHECKPOINTS).glob("*")):
        if last is None or step_of(name) <= last:
            with contextlib.suppress(RunError):
                manifest = read_manifest(folder / name)
                found[name] = {file: entry["sha256"] for file, entry in manifest.items()}
    return found


def checkpoints_of(names: Iterable[str]) -> list[str]:
    """Return which of these are checkpoints, relative to the run folder, the oldest first."""
    found = (name for name in names if re.fullmatch(r"step-[0-9]{1,18}", name))
    return sorted((f"{CHECKPOINTS}/{name}" for name in found), key=step_of)


def step_of(checkpoint: str) -> int:
    """Return the step of a checkpoint's name."""
    return int(checkpoint.rpartition("step-")[2])


def signature_of(path: Path) -> Signature:
    """Return what tells whether a file has changed."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def send_file(place: Place, folder: Path, name: str) -> None:
    """Send a file of a run folder under its own name.

    Raises:
        OSError, pyarrow.ArrowException: it is no regular file, the way to it in the copy leads through a link, or it
            cannot be sent.
    """
    source = folder / name
    if not stat.S_ISREG(source.lstat().st_mode):
        raise OSError(f"{source} is no regular file")
    refuse_links(place, Path(name).parent)
    place.send(source, name)


def refuse_links(place: Place, name: Path) -> None:
    """Refuse a way that leads through a symbolic link out of a copy in a folder.

    Raises:
        OSError: there is one.
    """
    if isinstance(place.filesystem, LocalFileSystem):
        for part in (name, *name.parents):
            path = Path(place.path) / part
            if part.parts and path.is_symlink():
                raise OSError(f"{path} is a symbolic link, which may lead anywhere; remove it")
