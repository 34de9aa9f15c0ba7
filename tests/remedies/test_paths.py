"""Does a refusal of a path, of a folder or of a lock say what is taken in its place?"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.paths import absolute, check_writable
from engine.training.holding import hold, release

Refused = Callable[..., re.Match[str]]


def test_a_home_folder_that_is_not_known(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody-here").mkdir()
    words = r"give the whole path, or (\./\S+) for a folder of this name"
    proposed = refused(words, lambda: absolute("~nobody-here/run", "--run-dir"))[1]
    assert absolute(proposed, "--run-dir") == tmp_path / "~nobody-here" / "run"
    assert absolute(str(tmp_path / "~nobody-here" / "run"), "--run-dir") == tmp_path / "~nobody-here" / "run"


def test_a_current_folder_that_is_removed(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    words = "change to another folder, or give a path that begins with (/)"
    begin = refused(words, lambda: absolute("run", "--run-dir"))[1]
    assert absolute(f"{begin}some/run", "--run-dir") == Path("/some/run")
    monkeypatch.chdir(tmp_path)
    assert absolute("run", "--run-dir") == tmp_path / "run"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").touch()
    words = "give the name of one that is, or can be made"
    refused(words, lambda: check_writable(tmp_path / "file" / "below", "--out"))
    refused("give another folder", lambda: check_writable(Path("/proc/here"), "--out"))
    check_writable(tmp_path, "--out")
    check_writable(tmp_path / "can" / "be" / "made", "--out")
    refused("is empty; expected a path", lambda: absolute("", "--out"))


@pytest.mark.parametrize("spoil", [lambda lock: lock.symlink_to("elsewhere"), os.mkfifo], ids=["a link", "a pipe"])
def test_what_is_no_lock(spoil: Callable[[Path], None], tmp_path: Path, refused: Refused) -> None:
    spoil(tmp_path / ".lock")
    lock = refused(r"(\S+\.lock): .*remove it, and give the same command again", lambda: hold(tmp_path, "training"))
    Path(lock[1]).unlink()
    release(hold(tmp_path, "training"))


def test_a_file_system_without_locks(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as some that are mounted over a network."""
    locked = fcntl.flock

    def without(file: Any, kind: int) -> None:
        if "network" in os.readlink(f"/proc/self/fd/{file.fileno()}"):
            raise OSError(37, os.strerror(37))
        locked(file, kind)

    monkeypatch.setattr(fcntl, "flock", without)
    for name in ("network", "other"):
        (tmp_path / name).mkdir()
    refused("give a --run-dir on another file system", lambda: hold(tmp_path / "network", "training"))
    release(hold(tmp_path / "other", "training"))


def test_a_lock_that_may_not_be_opened(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed to write everything."""
    opened = os.open

    def as_others(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(".lock") and os.path.exists(path) and not os.stat(path).st_mode & 0o200:
            raise PermissionError(13, os.strerror(13), str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", as_others)
    for name in ("first", "other"):
        (tmp_path / name).mkdir()
    lock = tmp_path / "first" / ".lock"
    lock.touch(mode=0o400)
    refused("make it writable, or give another folder", lambda: hold(tmp_path / "first", "training"))
    release(hold(tmp_path / "other", "training"))
    lock.chmod(0o600)
    release(hold(tmp_path / "first", "training"))
