"""Knowledge stores in checkpoints, written without what has not changed.

The store of a learner is one or more pieces, LEARNER.knowledge-STEP.safetensors, each with the rows that changed
until that step since the piece before; of a row in several pieces the last one counts. Pieces of the checkpoint
before are linked, not copied. When the later pieces hold more rows than the first, all become one: what is written
stays within a small factor of what changed, and what lies on disk within a small factor of the store. A linked piece
is one file: damage to it damages every checkpoint that holds it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from engine.atomic import write_synced
from engine.backbones.safetensors_files import parse_tensors
from engine.checkpoints.manifests import Manifest, entry_of, read_listed, read_manifest
from engine.errors import RunError
from engine.knowledge import merge_changes

_ROWS = "rows"
_INFIX = ".knowledge-"
_SUFFIX = ".safetensors"
_PIECE = re.compile(r"(.+)\.knowledge-([0-9]{1,18})\.safetensors")


def _pieces_of(files: Iterable[str], learner: str) -> list[str]:
    """Return the names of a learner's pieces, oldest first: as numbers, of which the largest have more digits."""
    found = [match for file in files if (match := _PIECE.fullmatch(file)) and match[1] == learner]
    return [match[0] for match in sorted(found, key=lambda match: int(match[2]))]


def write_pieces(aside: Path, before: Path | None, learner: str, step: int, changes: Mapping[str, Tensor]) -> Manifest:
    """Put a store's pieces into a checkpoint that is being written.

    Args:
        aside: folder of the new checkpoint.
        before: folder of the checkpoint whose state the changes follow; None if they are all there is.
        learner: name of the learner.
        step: of the new checkpoint.
        changes: the rows that changed, as ``KnowledgeStore.changes``.

    Returns:
        the pieces' entries for the new manifest, oldest first.

    Raises:
        RunError: the checkpoint before is gone or damaged, so that the store would not be whole.
        OSError: the disk cannot be written to.
    """
    entries: Manifest = {}
    if before is not None:
        entries = _entries(before, learner)
    count = len(changes[_ROWS])
    first, *later = [entry["rows"] for entry in entries.values()] or [0]
    if before is not None and count + sum(later) > first:
        changes = merge_changes([*_verified(before, entries), changes])
        entries, count = {}, len(changes[_ROWS])
    for name, entry in entries.items():
        assert before is not None
        _link(before / name, aside / name, entry["bytes"])
    if count or not entries:
        content = safetensors.torch.save(dict(changes))
        name = f"{learner}{_INFIX}{step:06d}{_SUFFIX}"
        write_synced(aside / name, content)
        entries[name] = {**entry_of(content), "rows": count}
    return entries


def read_pieces(contents: Mapping[str, bytes], learner: str) -> dict[str, Tensor]:
    """Return all rows of a learner's store, out of a checkpoint's files by name; nothing if it has no store.

    Raises:
        RunError: a piece is damaged, or no rows of the same store as the others.
    """
    pieces = {name: parse_tensors(contents[name], name, RunError) for name in _pieces_of(contents, learner)}
    return _merged(pieces) if pieces else {}


def _merged(pieces: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    first = next(iter(pieces.values()))
    for name, piece in pieces.items():
        rows = piece.get(_ROWS)
        alike = piece.keys() == first.keys() and all(
            value.dtype == first[key].dtype and value.shape[1:] == first[key].shape[1:] for key, value in piece.items()
        )
        if rows is None or rows.dtype != torch.int64 or rows.dim() != 1 or not alike:
            raise RunError(f"{name} is no piece of the same knowledge as the others")
        if any(value.dim() == 0 or len(value) != len(rows) for value in piece.values()):
            raise RunError(f"{name} has {len(rows)} rows, but not as many values")
    return merge_changes(list(pieces.values()))


def _entries(checkpoint: Path, learner: str) -> Manifest:
    try:
        listed = read_manifest(checkpoint)
    except RunError as error:
        raise _gone(checkpoint, str(error)) from error
    entries = {name: listed[name] for name in _pieces_of(listed, learner)}
    if not entries or not all("rows" in entry for entry in entries.values()):
        raise _gone(checkpoint, f"its manifest names no knowledge of {learner}")
    return entries


def _verified(checkpoint: Path, entries: Manifest) -> list[Mapping[str, Tensor]]:
    try:
        contents = {name: read_listed(checkpoint, name, entry) for name, entry in entries.items()}
        return [parse_tensors(content, name, RunError) for name, content in contents.items()]
    except RunError as error:
        raise _gone(checkpoint, str(error)) from error


def _link(source: Path, target: Path, size: int) -> None:
    try:
        # Reading all of it, as its sha256 would take, is what links are there to spare.
        if source.is_symlink() or source.stat().st_size != size:
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
