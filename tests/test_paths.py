"""Does a path mean the same to every reader, and is it tried before it is needed?"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError, RunError
from engine.paths import absolute, check_writable


def test_home_folders_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert absolute("~/a", "x") == tmp_path / "a"
    assert absolute("a/../b", "x") == tmp_path / "b"
    for path, words in {"~nobody-here/a": "home folder of ~nobody-here", "": "is empty", "a\0b": "NUL"}.items():
        with pytest.raises(RunError, match=words):
            absolute(path, "x", RunError)


def test_a_removed_current_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="--out=a: is relative to the current folder, which has been removed"):
        absolute("a", "--out")
    assert absolute("/a", "--out") == Path("/a")


def test_what_cannot_be_written_to_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    check_writable(tmp_path / "new" / "newer", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for bad in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/no")):
        with pytest.raises(InputError, match=f"--out={bad}"):
            check_writable(bad, "--out")
