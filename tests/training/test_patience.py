"""Does a training outlast a disk that takes nothing for a while, and is nothing missing in the end?"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engine
from engine.atomic import AppendedFile
from engine.errors import NotWritten, RayEnded
from engine.recipes import MKF, Recipe, Recovery
from engine.training.patience import DiskPatience
from engine.training.presence import FolderGone, Presence

ENDINGS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "failing": errno.EIO, "away": errno.ESTALE}
# Refused beside writing, as Linux does it also where nothing has that name.
REFUSED = {errno.EROFS: ("mkdir", "unlink"), errno.ESTALE: ("mkdir", "unlink", "stat")}


class Disk:
    """Takes nothing in a run folder while it is `bad`; time passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.code, self.now, self.bad = str(folder), errno.ENOSPC, 0.0, False
        self.good_after = float("inf")
        self._fsync, self._write = os.fsync, os.write
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr("engine.atomic.os.write", self.write)
        for name in ("mkdir", "unlink", "stat"):
            monkeypatch.setattr(os, name, functools.partial(self.by_name, name, getattr(os, name)))
        # Of that file alone: other threads sleep, too.
        clock = SimpleNamespace(sleep=self.sleep, monotonic=lambda: self.now)
        monkeypatch.setattr("engine.training.patience.time", clock)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.good_after:
            self.bad = False

    def _refuse(self, descriptor: int) -> None:
        if self.bad and os.readlink(f"/proc/self/fd/{descriptor}").startswith(self.folder):
            raise OSError(self.code, os.strerror(self.code))

    def by_name(self, name: str, call: Callable[..., Any], path: Any, *arguments: Any, **named: Any) -> Any:
        if self.bad and name in REFUSED.get(self.code, ()) and str(path).startswith(self.folder):
            raise OSError(self.code, os.strerror(self.code))
        return call(path, *arguments, **named)

    def fsync(self, descriptor: int) -> None:
        self._refuse(descriptor)
        self._fsync(descriptor)

    def write(self, descriptor: int, content: Any) -> int:
        self._refuse(descriptor)
        return self._write(descriptor, content)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, tmp_path / "run")


def plan(**recovery: Any) -> engine.Plan:
    return engine.Plan(
        executor="process", report_every_steps=1, checkpoint_every_steps=2, recovery=Recovery(**recovery)
    )


@pytest.mark.parametrize(
    ("kind", "method"), [("full", "infopro"), ("read-only", "infopro"), ("failing", "mkf"), ("away", "infopro")]
)
def test_a_disk_that_takes_nothing_for_a_while(
    kind: str,
    method: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    disk: Disk,
    at_submitted: Callable[[dict[int, Callable[[], None]]], None],
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    changes: dict[str, Any] = {"method": MKF(warmup_fraction=0.5, recalibration_images=20)} if method == "mkf" else {}
    recipe = tiny_recipe(epochs=2, **changes)
    straight = engine.train(recipe, plan(), tmp_path / "straight")
    disk.code = ENDINGS[kind]
    # The checkpoint of step 4 cannot be written, nor what is reported meanwhile.
    at_submitted({4: lambda: setattr(disk, "bad", True), 7: lambda: setattr(disk, "bad", False)})
    result = engine.train(recipe, plan(), tmp_path / "run")
    assert (result.status, result.weights_sha256) == ("finished", straight.weights_sha256)
    assert_same_run(tmp_path / "straight", tmp_path / "run")
    first, second = (engine.load(tmp_path / name).checkpoint.states for name in ("straight", "run"))
    for name, state in first.items():
        assert all(value.equal(second[name].knowledge[key]) for key, value in state.knowledge.items())
    (warning, again) = [text for text in result.warnings if "checkpoint" in text or "step-" in text]
    assert (
        "step-000004" in warning
        and "training goes on without, for 600 s at most; make it writable meanwhile" in warning
    )
    assert again.startswith("a checkpoint: the disk is back, after ")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "checkpoint after step 2" in log
    assert "checkpoint after step 4" not in log
    assert "checkpoint after step 6" in log
    # Lines that the disk did not take came later.
    assert warning in log


def test_what_comes_at_the_end_is_waited_for(
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    disk: Disk,
    at_submitted: Callable[[dict[int, Callable[[], None]]], None],
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    straight = engine.train(tiny_recipe(), plan(), tmp_path / "straight")
    disk.good_after = 20.0
    at_submitted({8: lambda: setattr(disk, "bad", True)})
    result = engine.train(tiny_recipe(), plan(), tmp_path / "run")
    assert (result.status, result.weights_sha256) == ("finished", straight.weights_sha256)
    assert_same_run(tmp_path / "straight", tmp_path / "run")
    assert disk.now >= 20.0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ESTALE], ids=["full", "away"])
def test_a_team_that_is_started_again_waits_too(
    code: int,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    disk: Disk,
    at_submitted: Callable[[dict[int, Callable[[], None]]], None],
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    """Nothing was reported before it was lost, so that no metrics wait to be written."""
    seldom = dataclasses.replace(plan(), report_every_steps=3)
    straight = engine.train(tiny_recipe(), seldom, tmp_path / "straight")
    disk.good_after, disk.code = 20.0, code

    def lose() -> None:
        disk.bad = True
        raise RayEnded("Ray's raylet ended with exit code 1")

    at_submitted({3: lose})
    result = engine.train(tiny_recipe(), seldom, tmp_path / "run")
    assert (result.status, result.weights_sha256) == ("finished", straight.weights_sha256)
    assert_same_run(tmp_path / "straight", tmp_path / "run")
    assert 20.0 <= disk.now < 30.0
    what = {errno.ENOSPC: "metrics.jsonl: the disk is full", errno.ESTALE: "checkpoints: could not be read: Stale"}
    (warning,) = [text for text in result.warnings if text.startswith(f"{tmp_path / 'run'}/{what[code]}")]
    assert "; it is waited for, for 600 s at most" in warning


def test_a_disk_that_is_away_is_no_folder_that_was_moved(tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    presence, disk.code = Presence(folder), ENDINGS["away"]
    disk.bad = True
    presence.check()
    with pytest.raises(NotWritten, match="run: could not be written: Stale file handle"):
        Presence(folder)
    disk.bad = False
    presence.check()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FolderGone):
        presence.check()


def test_patience_ends(
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    disk: Disk,
    at_submitted: Callable[[dict[int, Callable[[], None]]], None],
) -> None:
    at_submitted({4: lambda: setattr(disk, "bad", True)})
    message = r"the disk is full; free .* \(none could be written for plan.recovery.checkpoint_patience_seconds=50\)"
    # Of this kind a search knows it for nothing that its settings did.
    with pytest.raises(NotWritten, match=message):
        engine.train(tiny_recipe(), plan(checkpoint_patience_seconds=50.0), tmp_path / "run")
    assert 50.0 <= disk.now < 60.0
    assert engine.load(tmp_path / "run").checkpoint.step == 2
    disk.bad = False
    assert engine.train(tiny_recipe(), plan(), tmp_path / "run").status == "finished"


def test_who_is_in_a_hurry_does_not_wait() -> None:
    def fail() -> None:
        raise NotWritten("the disk is full")

    said: list[str] = []
    with pytest.raises(engine.RunError, match="full"):
        DiskPatience(1e9, said.append).wait_for("a checkpoint", fail, lambda: True)

    def gone() -> None:
        raise FolderGone("moved")

    with pytest.raises(FolderGone):
        DiskPatience(1e9, said.append).wait_for("a checkpoint", gone)
    with pytest.raises(engine.RunError, match="builds on"):
        DiskPatience(1e9, said.append).failed("a checkpoint", engine.RunError("what it builds on is missing"))
    assert said == []


def test_when_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("engine.training.patience.time", SimpleNamespace(monotonic=lambda: now[0]))
    said: list[str] = []
    patience = DiskPatience(600.0, said.append)
    assert not patience.is_time_for("it")
    patience.failed("it", NotWritten("full"))
    now[0] = 29.0
    assert not patience.is_time_for("it")
    now[0] = 30.0
    assert patience.is_time_for("it")
    patience.failed("it", NotWritten("full"))
    assert not patience.is_time_for("it")
    patience.succeeded("it")
    now[0] = 1e6
    assert not patience.is_time_for("it")
    # From here on it begins anew.
    patience.failed("it", NotWritten("full"))
    assert said == [
        "full; training goes on without, for 600 s at most; make it writable meanwhile",
        "it: the disk is back, after 30 s",
        "full; training goes on without, for 600 s at most; make it writable meanwhile",
    ]


def test_what_the_disk_takes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, left, write = tmp_path / "file", [5], os.write
    file = AppendedFile(path.open("ab", buffering=0))

    def takes(descriptor: int, content: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        taken = write(descriptor, bytes(content[: left[0]]))
        left[0] -= taken
        return taken

    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.write", takes)
        file.write(b"one\n")
        for text in (b"two\n", b"three\n"):
            with pytest.raises(OSError, match="full"):
                file.write(text)
        assert path.read_bytes() == b"one\nt"
        with pytest.raises(OSError, match="full"):
            file.close()
    assert not file.closed
    file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert file.closed
