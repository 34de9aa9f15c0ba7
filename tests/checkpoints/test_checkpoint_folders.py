"""Is a checkpoint whole or absent, however its writing ends, and is it read as it was saved?"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import folders, manifests, newest_checkpoint
from engine.errors import NotWritten, RunError
from tests.checkpoints.small_checkpoints import VALUES, _names, _save, _states


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


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    _save(tmp_path, 999_999, 1_000_000)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1_000_000


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


@pytest.mark.parametrize(("call", "code"), [("unlink", errno.EROFS), ("is_dir", errno.ESTALE)])
def test_a_disk_that_does_not_let_be_removed_what_is_not_there(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 4)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, refuse)
        with pytest.raises(NotWritten, match=f"step-000008: could not be written: {os.strerror(code)}"):
            _save(tmp_path, 8)
    assert _names(tmp_path) == ["step-000004"]


def test_an_old_one_that_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 4)
    is_dir = Path.is_dir

    def refuse(path: Path) -> bool:
        if path.name == "step-000004":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return is_dir(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_dir", refuse)
        with pytest.raises(NotWritten, match="step-000008: could not be written"):
            _save(tmp_path, 8, keep=1)
    assert _names(tmp_path) == ["step-000004", "step-000008"]
    _save(tmp_path, 9, keep=1)
    assert _names(tmp_path) == ["step-000009"]


def test_a_large_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_UNCOMPARED_BYTES", 10)
    monkeypatch.setattr(manifests, "_READ_AT_ONCE", 7)
    _save(tmp_path, 4)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (4, [])
