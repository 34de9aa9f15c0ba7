"""A file is replaced whole, or stays what it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.atomic import UNLOCKED_SECONDS, open_lock, remove_unfinished, replace_file, replacing, write_synced
from engine.errors import NotWritten, RunError


def test_the_new_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [found.name for found in path.parent.iterdir()] == ["file.txt"]


def test_after_an_error_the_old_file_is_untouched(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "the disk is full; free some space"), (errno.EROFS, "make it writable")]
)
@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "os.open", "os.fsync", "os.replace"])
def test_whatever_a_disk_refuses_is_told_in_one_way(
    step: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as disk:
        disk.setattr(step, fail)
        with pytest.raises(NotWritten, match=rf"^{path}: .*{said}"):
            replace_file(path, b"new")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]


def test_a_disk_that_takes_nothing_back_hides_no_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as disk:
        for step in ("os.fsync", "pathlib.Path.unlink"):
            disk.setattr(step, fail)
        for write in (write_synced, replace_file):
            with pytest.raises(NotWritten, match="file.txt: could not be written: Read-only"):
                write(tmp_path / "file.txt", b"new")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, mine = tmp_path / f".file.txt.{ended.pid}.tmp", tmp_path / f".file.txt.{os.getpid()}.tmp"
    kept = [mine, tmp_path / ".notes.tmp", tmp_path / f"file.{ended.pid}.tmp", tmp_path / "file.txt"]
    for path in (dead, *kept):
        path.write_text("half")
    folder = tmp_path / f".folder.{ended.pid}.tmp"
    folder.mkdir()
    # Where processes of other machines may write, it must be old, too.
    remove_unfinished(tmp_path, UNLOCKED_SECONDS)
    assert dead.exists()
    os.utime(dead, (0, time.time() - UNLOCKED_SECONDS - 1))
    remove_unfinished(tmp_path, UNLOCKED_SECONDS)
    assert not dead.exists()
    dead.write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, folder])
    # This process did not live then: one of the same number wrote it, as in a container that was started again.
    os.utime(mine, (0, 1_000_000_000))
    remove_unfinished(tmp_path)
    assert not mine.exists()


def test_nothing_ends_because_something_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path / "missing", tmp_path / ("x" * 300)):
        remove_unfinished(place)
    left = tmp_path / ".file.txt.4711.tmp"
    left.write_text("half")
    os.utime(left, (0, 1_000_000_000))

    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", fail)
        remove_unfinished(tmp_path)
    assert left.exists()


def test_what_is_written_aside_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    path = tmp_path / "folder" / "file.txt"
    path.parent.mkdir()
    path.with_name(f".file.txt.{os.getpid()}.tmp").symlink_to(outside)
    replace_file(path, b"new")
    assert (path.read_text(), outside.read_text()) == ("new", "mine")
    link = path.with_name("link")
    link.symlink_to(outside)
    with pytest.raises(RunError, match="link"):
        write_synced(link, b"new")
    assert outside.read_text() == "mine"


def test_a_lock_is_opened_without_cutting_it_off(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with open_lock(path, RunError) as lock:
        lock.write("who")
    assert path.stat().st_mode & 0o777 == 0o600
    with open_lock(path, RunError) as lock:
        assert lock.read() == "who"
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").mkdir()
    for name in ("link", "pipe", "deep", "missing/file"):
        with pytest.raises(RunError, match=name):
            open_lock(tmp_path / name, RunError)
    assert path.read_text() == "who"
