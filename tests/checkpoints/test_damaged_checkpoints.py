"""Is a checkpoint whose files are damaged, or are no files, skipped and named, and the newest whole one found?"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import folders, newest_checkpoint, require_checkpoint
from engine.errors import RunError
from tests.checkpoints.small_checkpoints import _save, _states


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
