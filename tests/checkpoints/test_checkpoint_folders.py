"""Is a checkpoint whole or absent, and is the newest whole one found whatever happened to the others?"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from engine.checkpoints import LearnerState, folders, manifests, newest_checkpoint, require_checkpoint, save_checkpoint
from engine.errors import RunError

METERS = {"sums": {"total": 0.1 + 0.2}, "counts": {"total": 7}, "images": 7, "scored": 7, "hits": 2, "observed": {}}
COUNTERS = {"meters": METERS, "memory": {"bytes": {}, "left": 3}, "scaler": {}, "diverged": None, "shapes": {}}
FACTS = {
    "name": "digits",
    "num_classes": 2,
    "class_names": ["a", "b"],
    "image_shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.25],
    "sizes": {"train": 9, "test": 3},
    "fingerprint": "f",
}
VALUES = {"recipe": "abc", "facts": FACTS, "latest": {"test/loss": 1 / 3}}


def _states(step: int) -> dict[str, LearnerState]:
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3) + step
    return {
        "segment0": LearnerState(
            {"body.a": values, "optimizer.body.a.momentum_buffer": -values}, {"steps": step, **COUNTERS}
        ),
        "segment1": LearnerState(
            {"body.b": values.to(torch.bfloat16), "body.count": torch.tensor(step), "body.none": torch.empty(0, 4)},
            {"steps": step, **COUNTERS},
        ),
    }


def _save(folder: Path, *steps: int, keep: int = 9) -> Path:
    for step in steps:
        path = save_checkpoint(folder, step, _states(step), VALUES, keep)
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    path = _save(tmp_path, 12)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.path, found.step, skipped) == (path, 12, [])
    assert found.values == VALUES
    expected = _states(12)
    assert found.states.keys() == expected.keys()
    for name, state in expected.items():
        assert found.states[name].extra == state.extra
        assert found.states[name].tensors.keys() == state.tensors.keys()
        for key, value in state.tensors.items():
            read = found.states[name].tensors[key]
            assert (read.dtype, read.shape) == (value.dtype, value.shape)
            assert read.equal(value)


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    assert _names(path) == ["MANIFEST.json", "segment0.safetensors", "segment1.safetensors", "state.json"]
    for name in ("MANIFEST.json", "state.json"):
        json.loads((path / name).read_text())
    content = (path / "segment0.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["body.a"]["dtype"] == "F32"


def test_the_manifest_states_each_other_file(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert sorted(manifest) == [name for name in _names(path) if name != "MANIFEST.json"]
    for name, stated in manifest.items():
        content = (path / name).read_bytes()
        assert stated == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_no_pickle_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was loaded")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None


def test_a_pickle_in_the_place_of_tensors_is_damage(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    content = pickle.dumps({"body.a": [1.0]})
    (path / "segment0.safetensors").write_bytes(content)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["segment0.safetensors"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    found, skipped = newest_checkpoint(tmp_path)
    assert found is None
    assert len(skipped) == 1


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    _save(tmp_path, 999_999, 1_000_000)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1_000_000


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _without_entry(path: Path) -> None:
    manifest = json.loads(path.read_text())
    del manifest["segment1.safetensors"]
    path.write_text(json.dumps(manifest))


DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "tensors cut off": ("segment0.safetensors", _truncate, "segment0.safetensors has"),
    "one bit of the tensors": ("segment1.safetensors", _flip_a_bit, "segment1.safetensors does not match"),
    "tensors missing": ("segment1.safetensors", Path.unlink, "segment1.safetensors is missing"),
    "state cut off": ("state.json", _truncate, "state.json has"),
    "one bit of the state": ("state.json", _flip_a_bit, "state.json does not match"),
    "state missing": ("state.json", Path.unlink, "state.json is missing"),
    "manifest missing": ("MANIFEST.json", Path.unlink, "never finished"),
    "manifest cut off": ("MANIFEST.json", _truncate, "Expecting"),
    "manifest empty": ("MANIFEST.json", lambda path: path.write_bytes(b""), "Expecting"),
    "manifest is null": ("MANIFEST.json", lambda path: path.write_text("null"), "MANIFEST.json: is not"),
    "manifest is a list": ("MANIFEST.json", lambda path: path.write_text('["state.json"]'), "MANIFEST.json: is not"),
    "manifest of numbers": (
        "MANIFEST.json",
        lambda path: path.write_text('{"state.json": 1}'),
        "MANIFEST.json: is not",
    ),
    "manifest is binary": ("MANIFEST.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "codec"),
    "manifest lacks a learner": ("MANIFEST.json", _without_entry, "segment1.safetensors"),
    "everything missing": ("", _empty, "never finished"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_and_named(damage: str, tmp_path: Path) -> None:
    name, spoil, reason = DAMAGES[damage]
    newest = _save(tmp_path, 4, 8)
    spoil(newest / name)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 4
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{newest}: damaged, skipped: ")
    assert reason in skipped[0]


def test_no_flipped_bit_of_a_manifest_changes_what_is_read(tmp_path: Path) -> None:
    """Nothing vouches for it, but whatever it says wrongly, the files do not match."""
    manifest = _save(tmp_path, 4, 8) / "MANIFEST.json"
    whole, expected, skips = manifest.read_bytes(), _states(8), 0
    for place in range(len(whole)):
        for bit in (0, 4):
            manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            found, skipped = newest_checkpoint(tmp_path)
            assert found is not None
            skips += len(skipped)
            if skipped:
                assert found.step == 4 and skipped[0].startswith(f"{manifest.parent}: damaged, skipped: ")
                continue
            assert found.step == 8
            for name, state in expected.items():
                assert all(found.states[name].tensors[key].equal(value) for key, value in state.tensors.items())
    assert skips > len(whole)


def test_with_none_left_the_damaged_ones_are_named(tmp_path: Path) -> None:
    for path in (_save(tmp_path, 4), _save(tmp_path, 8)):
        _truncate(path / "state.json")
    with pytest.raises(RunError, match=r"no complete checkpoint .*step-000008.*step-000004.*train the recipe first"):
        require_checkpoint(tmp_path)
    with pytest.raises(RunError, match="none was written yet"):
        require_checkpoint(tmp_path / "empty")


def test_partial_and_foreign_folders_are_no_checkpoints(tmp_path: Path) -> None:
    path = _save(tmp_path, 4)
    shutil.copytree(path, tmp_path / ".step-000008.partial")
    shutil.copytree(path, tmp_path / "step-000008-copy")
    for name in ("step-²", "step-", "step--1", "step-1e3"):
        (tmp_path / name).mkdir()
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, [])


def test_what_is_no_folder_is_named_and_replaced(tmp_path: Path) -> None:
    path = _save(tmp_path / "run", 4)
    shutil.copytree(path, tmp_path / "elsewhere")
    (tmp_path / "run" / "step-000008").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "step-000009").write_text("a file")
    found, skipped = newest_checkpoint(tmp_path / "run")
    assert found is not None
    assert found.step == 4
    assert [line.rpartition("/")[2] for line in skipped] == [
        f"step-{step:06d}: damaged, skipped: is no folder" for step in (9, 8)
    ]
    _save(tmp_path / "run", 8, 9)
    assert newest_checkpoint(tmp_path / "run")[1] == []
    assert _names(tmp_path / "elsewhere") == _names(path)


def test_what_a_killed_run_left_aside_does_not_stop_the_next_one(tmp_path: Path) -> None:
    aside = tmp_path / ".step-000004.partial"
    aside.mkdir()
    (aside / "segment9.safetensors").write_bytes(b"half")
    path = _save(tmp_path, 4)
    assert _names(tmp_path) == [path.name]
    assert "segment9.safetensors" not in _names(path)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_as_wanted_are_kept(keep: int, tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 10, 11, 100, keep=keep)
    assert _names(tmp_path) == [f"step-{step:06d}" for step in (10, 11, 100)[-keep:]]


def test_a_damaged_later_one_does_not_drive_out_whole_ones(tmp_path: Path) -> None:
    _truncate(_save(tmp_path, 4, 8) / "state.json")
    _save(tmp_path, 6, keep=1)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 6


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    path = _save(tmp_path, 4)
    _flip_a_bit(path / "segment0.safetensors")
    assert _save(tmp_path, 4) == path
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, [])


def test_a_whole_one_of_the_same_step_is_never_in_danger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 4, keep=1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a whole checkpoint was removed")

    monkeypatch.setattr(folders.shutil, "rmtree", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    _save(tmp_path, 4, keep=1)


def test_order_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced before the manifest is written, and all of it before the name appears."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        assert (source / "MANIFEST.json").is_file()
        assert not target.exists()
        events.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    _save(tmp_path, 4)
    assert sorted(events[:3]) == ["sync segment0.safetensors", "sync segment1.safetensors", "sync state.json"]
    assert events[3:] == [
        "sync MANIFEST.json",
        "sync .step-000004.partial",
        "rename to step-000004",
        f"sync {tmp_path.name}",
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("fails_at", range(5))
def test_a_full_disk(fails_at: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 4)
    syncs = 0

    def full(_: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > fails_at:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"step-000008.*the disk is full; free some space and give the same command"):
            _save(tmp_path, 8, keep=1)
    assert _names(tmp_path) == ["step-000004"]
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, [])
    assert _save(tmp_path, 8).name == "step-000008"


def test_a_rename_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 4)

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"step-000008: could not be written: Input/output error"):
        _save(tmp_path, 8)
    assert _names(tmp_path) == ["step-000004"]


def _rewritten(checkpoint: Path, name: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, and its sha256 into the manifest: nothing looks damaged."""
    (checkpoint / name).write_bytes(content)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    manifest[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


def _with_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(checkpoint: Path) -> None:
        document = json.loads((checkpoint / "state.json").read_text())
        change(document)
        _rewritten(checkpoint, "state.json", json.dumps(document).encode())

    return rewrite


def _with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(checkpoint: Path) -> None:
        name = "segment0.safetensors"
        tensors = safetensors.torch.load((checkpoint / name).read_bytes())
        change(tensors)
        _rewritten(checkpoint, name, safetensors.torch.save(tensors))

    return rewrite


def _rename_learner(checkpoint: Path) -> None:
    _with_state(lambda document: document["learners"].update(other=document["learners"].pop("segment1")))(checkpoint)
    _with_state(lambda document: document["tensors"].update(other=document["tensors"].pop("segment1")))(checkpoint)
    content = (checkpoint / "segment1.safetensors").read_bytes()
    _rewritten(checkpoint, "other.safetensors", content)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    del manifest["segment1.safetensors"]
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


SLOT = "optimizer.body.a.momentum_buffer"
CONTRADICTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another step": (_with_state(lambda document: document.update(step=7)), "state.json is of step 7"),
    "a step that is none": (_with_state(lambda document: document.update(step="8")), "state.json: is not what"),
    "no recipe": (_with_state(lambda document: document.pop("recipe")), "recipe: Field required"),
    "facts of nothing": (_with_state(lambda document: document.update(facts={})), "state.json, facts: is not"),
    "more classes than names": (_with_state(lambda document: document["facts"].update(num_classes=9)), "9 classes"),
    "scores of text": (_with_state(lambda document: document.update(latest={"a": "b"})), "latest.a"),
    "absences of nothing": (
        _with_state(lambda document: document.update(absences=[{"since": 3}])),
        "absences.0.network",
    ),
    "more steps than the run": (
        _with_state(lambda document: document["learners"]["segment0"].update(steps=9)),
        "learners.segment0.steps: found 9 after step 8",
    ),
    "no counters": (_with_state(lambda document: document["learners"]["segment1"].clear()), "learners.segment1"),
    "a learner without a file": (
        _with_state(lambda document: document["learners"].update(segment9={})),
        "segment9.safetensors is missing in the manifest",
    ),
    "a file without a learner": (
        _with_state(lambda document: document["learners"].pop("segment1")),
        "segment1.safetensors belongs to no learner",
    ),
    "no slots": (_with_tensors(lambda tensors: tensors.pop(SLOT)), "segment0.safetensors holds 1 tensors"),
    "slots of nothing": (
        _with_tensors(lambda tensors: tensors.update({SLOT.replace(".a.", ".b."): tensors.pop(SLOT)})),
        "belongs to no parameter",
    ),
    "slots of another shape": (
        _with_tensors(lambda tensors: tensors.update({SLOT: torch.zeros(4)})),
        "of shape (4,) belongs to no parameter",
    ),
    "another learner": (_rename_learner, "holds the learners segment0, other, expected segment0, segment1"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_one_whose_parts_contradict_one_another_is_skipped_and_named(contradiction: str, tmp_path: Path) -> None:
    change, reason = CONTRADICTIONS[contradiction]
    newest = _save(tmp_path, 4, 8)
    change(newest)
    found, skipped = newest_checkpoint(tmp_path, ("segment0", "segment1"))
    assert found is not None
    assert (found.step, len(skipped)) == (4, 1)
    assert skipped[0].startswith(f"{newest}: damaged, skipped: ")
    assert reason in skipped[0]


def test_slots_that_only_some_parameters_lack_are_missed(tmp_path: Path) -> None:
    states = {"one": LearnerState({"body.a": torch.ones(2), "body.b": torch.ones(3)}, {"steps": 1, **COUNTERS})}
    for slot in ("a.exp_avg", "a.exp_avg_sq", "b.exp_avg"):
        states["one"].tensors[f"optimizer.body.{slot}"] = torch.zeros_like(states["one"].tensors[f"body.{slot[0]}"])
    save_checkpoint(tmp_path, 1, states, VALUES, keep=1)
    assert "the optimizer's exp_avg_sq of body.b is missing" in newest_checkpoint(tmp_path)[1][0]


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "..", ".hidden", "a\0b", "", "é"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "run", 4)
    outside = tmp_path / "run" / "outside"
    outside.write_bytes(b"mine")
    _rewritten(path, "state.json", (path / "state.json").read_bytes())
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest[name] = {"sha256": hashlib.sha256(b"mine").hexdigest(), "bytes": 4}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    found, (line,) = newest_checkpoint(tmp_path / "run")
    assert found is None
    assert "MANIFEST.json: is" in line


def test_no_link_and_no_pipe_is_read(tmp_path: Path) -> None:
    for make in (lambda path: path.symlink_to(tmp_path / "kept"), os.mkfifo):
        for name in ("MANIFEST.json", "state.json", "segment0.safetensors"):
            path = _save(tmp_path / "run", 4)
            shutil.copyfile(path / name, tmp_path / "kept")
            (path / name).unlink()
            make(path / name)
            found, (line,) = newest_checkpoint(tmp_path / "run")
            assert found is None
            assert name in line


def test_files_of_20_gigabytes_are_not_read(tmp_path: Path) -> None:
    for name in ("MANIFEST.json", "state.json", "segment0.safetensors"):
        path = _save(tmp_path, 4)
        os.truncate(path / name, 20 * 2**30)
        found, (line,) = newest_checkpoint(tmp_path)
        assert found is None
        assert "21,474,836,480 bytes" in line


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 4)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folders.os, "listdir", refuse)
    with pytest.raises(RunError, match="may not be read by this user"):
        newest_checkpoint(tmp_path)


def test_one_that_was_written_before_tensors_were_counted_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path, 4)
    _with_state(lambda document: document.pop("tensors"))(path)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.values, skipped) == (4, VALUES, [])


def test_no_memory_is_taken_for_a_large_file_that_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    path = _save(tmp_path, 4)
    os.truncate(path / "segment0.safetensors", 200 * 2**20)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["segment0.safetensors"]["bytes"] = 200 * 2**20
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    tracemalloc.start()
    try:
        found, (line,) = newest_checkpoint(tmp_path)
        # The manifest itself may have 64 MiB.
        assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
    finally:
        tracemalloc.stop()
    assert found is None
    assert "segment0.safetensors does not match its sha256" in line


def test_a_large_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_UNCOMPARED_BYTES", 10)
    monkeypatch.setattr(manifests, "_READ_AT_ONCE", 7)
    _save(tmp_path, 4)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, [])
