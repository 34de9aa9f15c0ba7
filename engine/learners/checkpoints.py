"""Consistent cuts of a whole team on disk: written aside, fsynced, renamed; safetensors and JSON, never pickle.

What a run folder holds of one:

    checkpoints/step-000123/
      LEARNER.safetensors   every tensor that training changes, see `LearnerState`
      LEARNER.knowledge-000100.safetensors ...   pieces of its knowledge store, see `knowledge_files`
      state.json            step, digest of the recipe, fingerprint of the images, counters of each learner
      MANIFEST.json         sha256 and size of each file, written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from engine.atomic import sync_folder, write_error, write_synced
from engine.errors import RunError
from engine.learners import LearnerState
from engine.learners.knowledge_files import read_pieces, write_pieces

_MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint that was read and verified.

    Attributes:
        path: its folder.
        step: finished steps of the whole run.
        states: of each learner, by name.
        values: what the training loop stored beside them.
    """

    path: Path
    step: int
    states: dict[str, LearnerState]
    values: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, states: Mapping[str, LearnerState], values: Mapping[str, Any], keep: int
) -> Path:
    """Write a checkpoint, then remove the oldest ones beyond ``keep``.

    A complete one of the same step is left as it is: a run is repeatable, so it holds the same.

    Raises:
        RunError: the disk is full or cannot be written to; older checkpoints stay whole.
    """
    target = folder / f"step-{step:06d}"
    aside = folder / f".{target.name}.partial"
    if target.exists() and isinstance(_read_or_complain(target), Checkpoint):
        return target
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        contents = {f"{name}.safetensors": safetensors.torch.save(state.tensors) for name, state in states.items()}
        document = {"step": step, "learners": {name: state.extra for name, state in states.items()}, **values}
        contents["state.json"] = json.dumps(document, indent=2).encode()
        for name, content in contents.items():
            write_synced(aside / name, content)
        manifest = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
        }
        for name, state in states.items():
            if state.knowledge:
                follows = state.extra["knowledge_follows"]
                before = folder / f"step-{follows:06d}" if follows is not None else None
                manifest |= write_pieces(aside, before, _MANIFEST, name, step, state.knowledge)
        write_synced(aside / _MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(aside)
        if target.exists():
            # It is damaged, and was named when it was skipped.
            shutil.rmtree(target)
        os.replace(aside, target)
        sync_folder(folder)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    # Those of later steps are damaged, or they would have been resumed: counted, they would drive out whole ones.
    for old in [path for path in _folders(folder) if _step_of(path) <= step][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _folders(folder: Path) -> list[Path]:
    """Return the folders of all checkpoints, the oldest first."""
    found = (path for path in folder.glob("step-*") if path.is_dir() and path.name.removeprefix("step-").isdigit())
    return sorted(found, key=_step_of)


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint, and one line on each damaged one that was skipped."""
    skipped: list[str] = []
    for path in reversed(_folders(folder)):
        found = _read_or_complain(path)
        if isinstance(found, Checkpoint):
            return found, skipped
        skipped.append(found)
    return None, skipped


def _read_or_complain(path: Path) -> Checkpoint | str:
    """Return a checkpoint, or what is wrong with it."""
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        return f"{path}: damaged, skipped: {error}"


def _read(path: Path) -> Checkpoint:
    if not (path / _MANIFEST).is_file():
        raise ValueError(f"has no {_MANIFEST}, so it was never finished")
    contents: dict[str, bytes] = {}
    for name, expected in _read_manifest(path).items():
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        contents[name] = (path / name).read_bytes()
        if len(contents[name]) != expected["bytes"]:
            raise ValueError(f"{name} has {len(contents[name]):,} bytes, expected {expected['bytes']:,}")
        if hashlib.sha256(contents[name]).hexdigest() != expected["sha256"]:
            raise ValueError(f"{name} does not match its sha256")
    values = json.loads(contents["state.json"])
    extras = values.pop("learners")
    for extra in extras.values():
        # It says how the pieces on the disk hang together, which have been put together here.
        extra.pop("knowledge_follows", None)
    states = {
        name: LearnerState(safetensors.torch.load(contents[f"{name}.safetensors"]), extra, read_pieces(contents, name))
        for name, extra in extras.items()
    }
    return Checkpoint(path, values.pop("step"), states, values)


def _read_manifest(path: Path) -> dict[str, Any]:
    # Nothing vouches for the manifest itself, so any JSON may be in a damaged one.
    manifest = json.loads((path / _MANIFEST).read_bytes())
    whole = isinstance(manifest, dict) and all(
        isinstance(expected, dict) and isinstance(expected.get("bytes"), int) and "sha256" in expected
        for expected in manifest.values()
    )
    if not whole or "state.json" not in manifest:
        raise ValueError(f"{_MANIFEST} is not a list of files with their sizes and sha256")
    return manifest


def require_checkpoint(folder: Path) -> Checkpoint:
    """Return the newest complete checkpoint of a run that must have one.

    Raises:
        RunError: there is none; names the damaged ones.
    """
    checkpoint, skipped = newest_checkpoint(folder)
    if checkpoint is None:
        found = "; ".join(skipped) or "none was written yet"
        raise RunError(f"{folder}: holds no complete checkpoint ({found}); train the recipe first")
    return checkpoint
