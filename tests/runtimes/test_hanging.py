"""Is a process of Ray that is stopped told from one that was stopped for a while, and from a pause of the driver?"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from engine.runtimes.ray.private.hanging import Hanging


class Process:
    """A process whose state a test decides."""

    pid = 17

    def __init__(self) -> None:
        self.state = psutil.STATUS_SLEEPING
        self.listens = True
        self.done: list[str] = []

    def status(self) -> str:
        if self.state == "gone":
            raise psutil.NoSuchProcess(self.pid)
        return self.state

    def resume(self) -> None:
        self.done.append("resumed")
        if self.listens:
            self.state = psutil.STATUS_SLEEPING

    def kill(self) -> None:
        self.done.append("killed")


class Machine:
    """Two processes, and time that passes only when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.raylet, self.gcs = Process(), Process()
        self.hanging = Hanging({"gcs_server": self.gcs, "raylet": self.raylet}, 60.0)  # type: ignore[dict-item]

    def pass_by(self, seconds: float) -> list[str]:
        found = []
        for _ in range(round(seconds)):
            self.now += 1.0
            found.append(self.hanging.look())
        return [each for each in found if each is not None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_one_that_is_stopped_is_named_once_and_let_go_on(machine: Machine) -> None:
    assert machine.pass_by(100) == []
    machine.raylet.state = psutil.STATUS_STOPPED
    assert machine.pass_by(60) == []
    (said,) = machine.pass_by(100)
    assert said.startswith("Ray's raylet hangs: process 17 has been stopped since ") and said.endswith(", for 61 s")
    assert (machine.raylet.done, machine.gcs.done) == (["resumed"], [])


def test_one_that_does_not_go_on_is_ended(machine: Machine) -> None:
    machine.gcs.state, machine.gcs.listens = psutil.STATUS_STOPPED, False
    (said,) = machine.pass_by(66)
    assert said.startswith("Ray's gcs_server")
    assert machine.gcs.done == ["resumed"]
    assert machine.pass_by(2) == []
    machine.gcs.state = "gone"
    assert machine.pass_by(200) == []
    assert set(machine.gcs.done) == {"resumed", "killed"}


def test_one_in_a_debugger_is_left_alone(machine: Machine) -> None:
    machine.gcs.state = psutil.STATUS_TRACING_STOP
    assert machine.pass_by(200) == []
    assert machine.gcs.done == []


def test_one_that_was_stopped_for_a_while_is_well(machine: Machine) -> None:
    for _ in range(3):
        machine.raylet.state = psutil.STATUS_STOPPED
        assert machine.pass_by(59) == []
        machine.raylet.state = psutil.STATUS_SLEEPING
        assert machine.pass_by(2) == []
    assert machine.raylet.done == []


def test_a_pause_of_the_driver_is_held_against_nobody(machine: Machine) -> None:
    machine.raylet.state = psutil.STATUS_STOPPED
    for _ in range(10):
        assert machine.pass_by(50) == []
        machine.now += 100
    assert machine.raylet.done == []


def test_a_real_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        process = psutil.Process(child.pid)
        hanging, deadline = Hanging({"raylet": process}, 0.2), time.monotonic() + 60.0
        process.suspend()
        found = None
        while found is None and time.monotonic() < deadline:
            found = hanging.look()
            time.sleep(0.02)
        try:
            assert found is not None and f"Ray's raylet hangs: process {child.pid} has been stopped since " in found
            while process.status() == psutil.STATUS_STOPPED and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.status() != psutil.STATUS_STOPPED
        finally:
            child.kill()
