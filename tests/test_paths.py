"""Does a path mean the same to every reader, and is it tried before it is needed?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InputError, RunError
from engine.paths import absolute, check_target, check_writable, kind_of


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


def test_what_is_at_a_path_is_told_or_it_is_said_why_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    kinds = {"": "folder", "file": "file", "link": "file", "nothing": None, "file/below": None}
    assert {name: kind_of(tmp_path / name, "--out") for name in kinds} == kinds
    assert kind_of(Path("/dev/null"), "--out") == "other"
    with pytest.raises(RunError, match=r"--out=.*/round: cannot be looked at \(.*\); give a path"):
        kind_of(tmp_path / "round", "--out", RunError)
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(RunError, match="--out=.*cannot be looked at"):
            kind_of(tmp_path / name, "--out", RunError)


@pytest.mark.parametrize("check", [kind_of, check_writable])
def test_a_name_that_no_disk_can_hold_is_refused(check: Callable[..., object], tmp_path: Path) -> None:
    check(tmp_path / ("a" * 255), "--out")
    for path in (tmp_path / ("é" * 128), tmp_path / ("a" * 256) / "below"):
        with pytest.raises(RunError, match=r"--out: .{32}\.\.\. is a name of 256 bytes; give one of 255"):
            check(path, "--out", RunError)


def test_a_file_that_could_not_be_written_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    check_target(tmp_path / "a.png", "--draw", (".png",))
    (tmp_path / "b.png").mkdir()
    check_target(tmp_path / f"{'a' * 231}.png", "--draw", (".png",))
    with pytest.raises(InputError, match="--draw: aaa"):
        check_target(tmp_path / f"{'a' * 232}.png", "--draw", (".png",))
    refused = {
        tmp_path / "a.txt": "ends with '.txt'; give a name with .png or .gif",
        tmp_path / "new" / "a.png": f"there is no folder {tmp_path}/new; make it first",
        tmp_path / "b.png": "is no file and is left alone",
        Path("/proc/a.png"): "cannot be written to",
    }
    for path, words in refused.items():
        with pytest.raises(RunError, match=f"--draw={path}: .*{words}"):
            check_target(path, "--draw", (".png", ".gif"), RunError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png"]
