"""A file is replaced whole, or stays what it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.atomic import open_lock, replace_file, replacing, write_synced
from engine.errors import RunError


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
