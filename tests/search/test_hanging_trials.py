"""Is a trial whose process is stopped ended, by name, and nobody else?"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engine.search import hanging
from engine.search.hanging import HangingTrials
from engine.training.holding import hold, holder_here, release


class Process:
    """A process whose state a test decides."""

    def __init__(self, pid: int, name: str, state: str = psutil.STATUS_STOPPED) -> None:
        self.pid, self._name, self.state, self.killed = pid, name, state, False

    def name(self) -> str:
        return self._name

    def status(self) -> str:
        return self.state

    def kill(self) -> None:
        self.killed, self.state = True, psutil.STATUS_ZOMBIE


def test_what_hangs_is_ended_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = [Process(10, "ray::ImplicitFunc.train()"), Process(11, "ray::ImplicitFunc.__init__()")]
    others = [
        Process(12, "ray::LearnerActor"),
        Process(13, "raylet"),
        Process(14, "ray::ImplicitFunc.train()", "running"),
    ]
    # The number of a process that is gone may be that of another program by now.
    foreign = Process(15, "vim")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(hanging, "current_private_ray", lambda: SimpleNamespace(processes=lambda: [*own, *others]))
    monkeypatch.setattr(hanging, "holder_here", lambda folder: {"a": 10, "b": 15, "c": 14}[folder.name])
    monkeypatch.setattr(hanging.psutil, "Process", lambda pid: {10: own[0], 15: foreign, 14: others[2]}[pid])
    trials, found = HangingTrials(None), []
    for _ in range(100):
        now += 1.0
        found += trials.end({0: tmp_path / "a", 1: tmp_path / "b", 2: tmp_path / "c"})
    assert [number for number, _ in found] == [0, None]
    assert found[0][1].startswith("process 10 has been stopped since ") and found[0][1].endswith(", for 61 s")
    assert all(process.killed for process in own)
    assert not any(process.killed for process in [*others, foreign])


def test_a_lock_says_which_process_of_this_machine_holds_a_folder(tmp_path: Path) -> None:
    assert holder_here(tmp_path) is None
    lock = hold(tmp_path, "training")
    assert holder_here(tmp_path) == os.getpid()
    text = (tmp_path / ".lock").read_text()
    (tmp_path / ".lock").write_text(text.replace('"host": "', '"host": "another-'))
    assert holder_here(tmp_path) is None
    release(lock)
