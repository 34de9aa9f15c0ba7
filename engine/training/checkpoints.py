"""Consistent cuts of a whole team on disk: written aside, fsynced, renamed; safetensors and JSON, never pickle.

    checkpoints/step-000123/
      LEARNER.safetensors   every tensor that training changes, see `LearnerState`
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

from engine.errors import RunError
from engine.learners import LearnerState
from engine.training.files import sync_folder, write_error, write_synced

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

    Raises:
        RunError: the disk is full or cannot be written to; older checkpoints stay whole.
    """
    target = folder / f"step-{step:06d}"
    aside = folder / f".{target.name}.partial"
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
        write_synced(aside / _MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(aside)
        if target.exists():
            # Left by an earlier run of the same recipe: damaged, or it would have been resumed.
            shutil.rmtree(target)
        os.replace(aside, target)
        sync_folder(folder)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _folders(folder: Path) -> list[Path]:
    """Return the folders of all checkpoints, the oldest first."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir() and p.name[5:].isdigit()), key=lambda p: int(p.name[5:]))


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint, and one line on each damaged one that was skipped."""
    skipped: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return _read(path), skipped
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            skipped.append(f"{path}: damaged, skipped: {error}")
    return None, skipped


def _read(path: Path) -> Checkpoint:
    if not (path / _MANIFEST).is_file():
        raise ValueError(f"has no {_MANIFEST}, so it was never finished")
    manifest = json.loads((path / _MANIFEST).read_bytes())
    contents: dict[str, bytes] = {}
    for name, expected in manifest.items():
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        contents[name] = (path / name).read_bytes()
        if len(contents[name]) != expected["bytes"]:
            raise ValueError(f"{name} has {len(contents[name]):,} bytes, expected {expected['bytes']:,}")
        if hashlib.sha256(contents[name]).hexdigest() != expected["sha256"]:
            raise ValueError(f"{name} does not match its sha256")
    values = json.loads(contents["state.json"])
    extras = values.pop("learners")
    states = {
        name: LearnerState(safetensors.torch.load(contents[f"{name}.safetensors"]), extra)
        for name, extra in extras.items()
    }
    return Checkpoint(path, values.pop("step"), states, values)


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
