"""Manifests of checkpoints: which files belong to one, of which size and with which sha256.

Nothing vouches for the manifest itself, so it is believed only as far as it can be checked: names are plain, so that
none leads out of the folder, and no link is followed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from engine.errors import RunError
from engine.reading import checked, open_regular, read_bytes, read_json

MANIFEST = "MANIFEST.json"

_UNCOMPARED_BYTES = 64 * 2**20
_READ_AT_ONCE = 1 << 20

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=200)]
"""Of a file or a learner: nothing that could lead to another folder."""

Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class Entry(TypedDict):
    """What a manifest says of a file; ``rows`` only of a piece of a knowledge store."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Count
    rows: NotRequired[Count]


Manifest = dict[str, Entry]

_MANIFEST = TypeAdapter(dict[PlainName, Entry])


def entry_of(content: bytes) -> Entry:
    """Return what a manifest says of a file that holds this."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def read_manifest(checkpoint: Path) -> Manifest:
    """Return what the manifest in a checkpoint's folder says.

    Raises:
        RunError: there is none, or it is no list of files with plain names, their sizes and sha256.
    """
    path = checkpoint / MANIFEST
    if not os.path.lexists(path):
        raise RunError(f"{checkpoint}: has no {MANIFEST}, so it was never finished")
    return checked(read_json(path, RunError, follow_links=False), _MANIFEST, path, RunError)


def read_listed(checkpoint: Path, name: str, entry: Entry) -> bytes:
    """Return what a file of a checkpoint holds.

    The manifest alone bounds a file's size, and may state any. So a large file is compared with its sha256 block by
    block before memory is taken for it, and what was read once more then.

    Raises:
        RunError: it is missing, no regular file, or has not the size and sha256 that the manifest says.
    """
    path = checkpoint / name
    if not os.path.lexists(path):
        raise RunError(f"{path} is missing")
    size = os.lstat(path).st_size
    if size != entry["bytes"]:
        raise RunError(f"{path} has {size:,} bytes, expected {entry['bytes']:,}")
    if size > _UNCOMPARED_BYTES and _digest(path) != entry["sha256"]:
        raise RunError(f"{path} does not match its sha256")
    content = read_bytes(path, RunError, limit=entry["bytes"], follow_links=False)
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise RunError(f"{path} does not match its sha256")
    return content


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path, RunError, follow_links=False) as file:
        while block := file.read(_READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
