"""Consistent cuts of a whole team on disk: written aside, fsynced, renamed; safetensors and JSON, never pickle.

What a run folder holds of one:

    checkpoints/step-000123/
      LEARNER.safetensors   every tensor that training changes, see `LearnerState`
      LEARNER.knowledge-000100.safetensors ...   pieces of its knowledge store, see `knowledge_files`
      state.json            version, step, digest of the recipe, fingerprint of the images, counters of each learner
      MANIFEST.json         sha256 and size of each file, written last
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from engine.atomic import sync_folder, write_error, write_synced
from engine.backbones.safetensors_files import parse_tensors
from engine.checkpoints.agreement import DOCUMENT, STATE, check_facts, check_files, check_state
from engine.checkpoints.earlier_versions import FIRST_WITH_NAMES_OF_NOW, counters_of_now, tensors_of_now
from engine.checkpoints.knowledge_files import read_pieces, write_pieces
from engine.checkpoints.manifests import MANIFEST, Manifest, entry_of, read_listed, read_manifest
from engine.checkpoints.state import KNOWLEDGE_FOLLOWS, LearnerState
from engine.errors import RunError
from engine.reading import checked, naming, parse_json, read_json, without_version

CHECKPOINT_VERSION = 2
"""Of the form of a checkpoint: raised when an engine that knows the one before would misread it."""

_STEP = re.compile(r"step-([0-9]{1,18})")
_SHOWN = 5


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint that was read and verified.

    Attributes:
        path: its folder.
        step: finished steps of the whole run.
        states: of each learner, by name.
        values: what the training loop stored beside them.
        skipped: one line on each newer one that is damaged.
    """

    path: Path
    step: int
    states: dict[str, LearnerState]
    values: dict[str, Any]
    skipped: tuple[str, ...] = ()


def save_checkpoint(
    folder: Path, step: int, states: Mapping[str, LearnerState], values: Mapping[str, Any], keep: int
) -> Path:
    """Write a checkpoint, then remove the oldest ones beyond ``keep``.

    A complete one of the same step is left as it is: a run is repeatable, so it holds the same. Only one whose networks
    were not scored in time lacks the scores, and is replaced.

    Raises:
        RunError: the disk is full or cannot be written to; older checkpoints stay whole.
    """
    target = folder / f"step-{step:06d}"
    aside = folder / f".{target.name}.partial"
    if os.path.lexists(target):
        there = _read_or_complain(target)
        if isinstance(there, Checkpoint) and (
            there.values.get("is_evaluated", True) or not values.get("is_evaluated", True)
        ):
            return target
    try:
        _remove(aside)
        aside.mkdir(parents=True)
        contents = {f"{name}.safetensors": safetensors.torch.save(state.tensors) for name, state in states.items()}
        counts = {name: len(state.tensors) for name, state in states.items()}
        learners = {name: state.extra for name, state in states.items()}
        document = {"version": CHECKPOINT_VERSION, "step": step, "learners": learners, "tensors": counts, **values}
        contents[STATE] = json.dumps(document, indent=2).encode()
        for name, content in contents.items():
            write_synced(aside / name, content)
        manifest: Manifest = {name: entry_of(content) for name, content in contents.items()}
        for name, state in states.items():
            if state.knowledge:
                follows = state.extra[KNOWLEDGE_FOLLOWS]
                before = folder / f"step-{follows:06d}" if follows is not None else None
                manifest |= write_pieces(aside, before, name, step, state.knowledge)
        write_synced(aside / MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(aside)
        # What is there lacks scores, or is damaged and was named when it was skipped.
        _remove(target)
        os.replace(aside, target)
        sync_folder(folder)
        # Those of later steps are damaged, or they would have been resumed: counted, they would drive out whole ones.
        for old in [path for path in _folders(folder) if _step_of(path) <= step][:-keep]:
            _remove(old)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        # A disk that has become read-only refuses this, too, and would hide why.
        with contextlib.suppress(OSError):
            _remove(aside)
    return target


def _remove(path: Path) -> None:
    """Remove what is called so, of a link only the link, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _folders(folder: Path) -> list[Path]:
    """Return what is named like a checkpoint, the oldest first; RunError says if that may not be read."""
    if not folder.exists():
        return []
    with naming(folder, RunError):
        found = [folder / name for name in os.listdir(folder) if _STEP.fullmatch(name)]
    return sorted(found, key=_step_of)


def refuse_newer(folder: Path) -> None:
    """Refuse a folder of checkpoints if a newer engine has written the newest one, before anything else is done in it.

    Args:
        folder: that holds the checkpoints; it need not exist. One that is damaged is told of by who reads it.

    Raises:
        RunError: the folder may not be read.
        VersionError: a newer engine has written it.
    """
    for path in reversed(_folders(folder)):
        with contextlib.suppress(OSError, RunError):
            without_version(read_json(path / STATE, RunError), CHECKPOINT_VERSION, path / STATE, RunError)
            return


def newest_checkpoint(folder: Path, learners: Collection[str] | None = None) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint, and one line on each damaged one that was skipped.

    Args:
        folder: that holds the checkpoints; it need not exist.
        learners: names of those whose states it must hold; any unless given.

    Raises:
        RunError: the folder may not be read.
        VersionError: a newer engine has written the newest complete one.
    """
    skipped: list[str] = []
    for path in reversed(_folders(folder)):
        found = _read_or_complain(path, learners)
        if isinstance(found, Checkpoint):
            return found, skipped
        skipped.append(found)
    return None, skipped


def _read_or_complain(path: Path, learners: Collection[str] | None = None) -> Checkpoint | str:
    """Return a checkpoint, or what is wrong with it."""
    try:
        return _read(path, learners)
    except (OSError, RunError) as error:
        reason = str(error).removeprefix(f"{path}: ").replace(f"{path}{os.sep}", "")
        return f"{path}: damaged, skipped: {reason}"


def _read(path: Path, learners: Collection[str] | None) -> Checkpoint:
    if path.is_symlink() or not path.is_dir():
        raise RunError("is no folder")
    manifest = read_manifest(path)
    if STATE not in manifest:
        raise RunError(f"{MANIFEST} names no {STATE}")
    contents = {name: read_listed(path, name, entry) for name, entry in manifest.items()}
    # A newer one is not passed over as a damaged one would be: what was trained since would be lost.
    said = parse_json(contents[STATE], STATE, RunError)
    found = without_version(said, CHECKPOINT_VERSION, path / STATE, RunError)
    document = checked(found, DOCUMENT, STATE, RunError)
    values: dict[str, Any] = {**document}
    step, extras, counts = values.pop("step"), values.pop("learners"), values.pop("tensors", None)
    if step != _step_of(path):
        raise RunError(f"{STATE} is of step {step}")
    check_files(manifest, extras)
    if learners is not None and set(extras) != set(learners):
        raise RunError(f"holds the learners {', '.join(extras)}, expected {', '.join(learners)}")
    check_facts(values["facts"])
    states = {}
    for name, extra in extras.items():
        # It says how the pieces on the disk hang together, which have been put together here.
        extra.pop(KNOWLEDGE_FOLLOWS, None)
        file = f"{name}.safetensors"
        tensors = parse_tensors(contents.pop(file), file, RunError)
        # Checkpoints of before the tensors were counted do not say how many there are.
        if counts is not None and (not isinstance(counts, dict) or counts.get(name) != len(tensors)):
            raise RunError(f"{file} holds {len(tensors)} tensors, not as many as {STATE} says")
        if said.get("version", 0) < FIRST_WITH_NAMES_OF_NOW:
            extra, tensors = counters_of_now(extra), tensors_of_now(tensors)
        states[name] = LearnerState(tensors, extra, read_pieces(contents, name))
        check_state(name, states[name], step)
    return Checkpoint(path, step, states, values)


def require_checkpoint(folder: Path) -> Checkpoint:
    """Return the newest complete checkpoint of a run that must have one.

    Raises:
        RunError: there is none; names the damaged ones.
        VersionError: a newer engine has written it.
    """
    checkpoint, skipped = newest_checkpoint(folder)
    if checkpoint is None:
        found = "; ".join(skipped) or "none was written yet"
        raise RunError(
            f"{folder}: holds no complete checkpoint ({found}); train the recipe first, or, where its run is finished, "
            "once more with --resume never"
        )
    return replace(checkpoint, skipped=tuple(skipped))


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a folder of its own, which must be whole.

    Raises:
        RunError: it is damaged, not there, or no checkpoint.
        VersionError: a newer engine has written it.
    """
    if not _STEP.fullmatch(path.name):
        raise RunError(f"{path}: is no checkpoint; expected a folder such as checkpoints/step-000123")
    names = [each.name for each in _folders(path.parent)]
    if path.name not in names:
        there = f"the newest are {', '.join(names[-_SHOWN:])}" if names else "none was written yet"
        raise RunError(
            f"{path}: there is no such checkpoint ({there}); give another checkpoint, or the run folder, whose newest "
            "whole one is taken"
        )
    found = _read_or_complain(path)
    if isinstance(found, str):
        damage = found.replace(": damaged, skipped: ", ": is damaged: ", 1)
        raise RunError(f"{damage}; give another checkpoint, or the run folder, whose newest whole one is taken")
    return found
