"""How does a checkpoint hold a knowledge store without writing again what has not changed?

The store of a learner is one or more pieces, LEARNER.knowledge-STEP.safetensors, each with the rows that changed
until that step since the piece before; of a row in several pieces the last one counts. Pieces of the checkpoint
before are linked, not copied. When the later pieces hold more rows than the first, all become one: what is written
stays within a small factor of what changed, and what lies on disk within a small factor of the store. A linked piece
is one file: damage to it damages every checkpoint that holds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from engine.atomic import write_synced
from engine.errors import RunError
from engine.knowledge import merge_changes

_ROWS = "rows"
_INFIX = ".knowledge-"
_SUFFIX = ".safetensors"

Entry = dict[str, Any]


def _pieces_of(files: Iterable[str], learner: str) -> list[str]:
    """Return the names of a learner's pieces, oldest first: as numbers, of which the largest have more digits."""
    prefix = f"{learner}{_INFIX}"
    found = [file for file in files if file.startswith(prefix)]
    return sorted(found, key=lambda file: int(file.removeprefix(prefix).removesuffix(_SUFFIX)))


def write_pieces(
    aside: Path, before: Path | None, manifest: str, learner: str, step: int, changes: Mapping[str, Tensor]
) -> dict[str, Entry]:
    """Put a store's pieces into a checkpoint that is being written.

    Args:
        aside: folder of the new checkpoint.
        before: folder of the checkpoint whose state the changes follow; None if they are all there is.
        manifest: name of a checkpoint's manifest.
        learner: name of the learner.
        step: of the new checkpoint.
        changes: the rows that changed, as ``KnowledgeStore.changes``.

    Returns:
        the pieces' entries for the new manifest, oldest first.

    Raises:
        RunError: the checkpoint before is gone or damaged, so that the store would not be whole.
        OSError: the disk cannot be written to.
    """
    entries: dict[str, Entry] = {}
    if before is not None:
        entries = _entries(before / manifest, learner)
    count = len(changes[_ROWS])
    first, *later = [entry[_ROWS] for entry in entries.values()] or [0]
    if before is not None and count + sum(later) > first:
        changes = merge_changes([*(_verified(before / name, entry) for name, entry in entries.items()), changes])
        entries, count = {}, len(changes[_ROWS])
    for name, entry in entries.items():
        assert before is not None
        _link(before / name, aside / name, entry)
    if count or not entries:
        content = safetensors.torch.save(dict(changes))
        name = f"{learner}{_INFIX}{step:06d}{_SUFFIX}"
        write_synced(aside / name, content)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), _ROWS: count}
    return entries


def read_pieces(contents: Mapping[str, bytes], learner: str) -> dict[str, Tensor]:
    """Return all rows of a learner's store, out of a checkpoint's files by name; nothing if it has no store."""
    names = _pieces_of(contents, learner)
    return merge_changes([safetensors.torch.load(contents[name]) for name in names]) if names else {}


def _entries(manifest: Path, learner: str) -> dict[str, Entry]:
    try:
        listed = json.loads(manifest.read_bytes())
        names = _pieces_of(listed, learner)
        if not names:
            raise ValueError(f"{manifest.name} names no knowledge of {learner}")
        return {name: listed[name] for name in names}
    except (OSError, ValueError, TypeError) as error:
        raise _gone(manifest.parent, str(error)) from error


def _verified(path: Path, entry: Entry) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _gone(path.parent, str(error)) from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _gone(path.parent, f"{path.name} does not match its sha256")
    return safetensors.torch.load(content)


def _link(source: Path, target: Path, entry: Entry) -> None:
    try:
        # Reading all of it, as its sha256 would take, is what links are there to spare.
        if source.stat().st_size != entry["bytes"]:
            raise _gone(source.parent, f"{source.name} has not the size that it was written with")
        os.link(source, target)
    except FileNotFoundError as error:
        raise _gone(source.parent, str(error)) from error
    except OSError:
        # Not every file system has hard links.
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _gone(checkpoint: Path, reason: str) -> RunError:
    return RunError(
        f"{checkpoint}: the new checkpoint builds on this one, which cannot be read any more ({reason}); leave "
        "checkpoints in place while a run lasts. Start the same command again: it goes on from the newest whole one"
    )
