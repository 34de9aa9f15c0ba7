"""Do Ctrl-C and SIGTERM finish the step that is running, and does a second one stop at once?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import engine
from engine.tracking import read_metrics
from engine.training.interruption import ONE_EVENT_SECONDS, Interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def every_signal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signals that come close together be two."""
    monkeypatch.setattr("engine.training.interruption.ONE_EVENT_SECONDS", 0.0)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_the_second_raises(
    number: signal.Signals, every_signal_counts: None
) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(number)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_one_of_each_is_two(every_signal_counts: None) -> None:
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_two_that_come_at_once_are_one() -> None:
    """As bash and the kernel both say it when a terminal is closed."""
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert interruption.requested


def test_handlers_are_put_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_beside_the_main_thread_nothing_is_changed() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def enter() -> None:
        with Interruption() as interruption:
            seen.append((interruption.requested, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_what_shall_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert not interruption.requested
    finally:
        signal.signal(signal.SIGHUP, before)


class Work:
    """Learners that are waited for, and have computed for so many seconds."""

    def __init__(self, seconds: float, each: float) -> None:
        self.seconds, self.each = seconds, each

    def activity(self) -> float:
        self.seconds += self.each
        return self.seconds

    def abandon(self) -> None:
        raise AssertionError("nobody was deaf")


def test_one_signal_stops_work_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.interruption._HANGING_SECONDS", 0.5)
    woken = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    with pytest.raises(KeyboardInterrupt), Interruption(Work(seconds=7.0, each=0.0)):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    after = signal.set_wakeup_fd(woken)
    assert after == woken


def test_work_that_goes_on_is_let_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.interruption._HANGING_SECONDS", 0.3)
    with Interruption(Work(seconds=7.0, each=1.0)) as interruption:
        signal.raise_signal(signal.SIGINT)
        time.sleep(1.5)
        assert interruption.requested


TRAIN = """
import sys
import time

import engine
from engine.runtimes import ProcessRuntime

if "slow-to-finish" in sys.argv:
    def finish(self):
        print("finishing", flush=True)
        time.sleep(600)
    ProcessRuntime.finish = finish

words = ["data.train_limit=44", "data.test_limit=20", "data.batch_size=12", "epochs=100000",
         "plan.executor=process", "plan.report_every_steps=1", "plan.evaluate_every_epochs=100000",
         "plan.checkpoint_every_steps=400000"]
recipe, plan = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), words)
result = engine.train(recipe, plan, sys.argv[1])
print(result.status, result.steps, flush=True)
"""


@contextmanager
def _training(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", TRAIN, str(folder), *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            metrics = folder / "metrics.jsonl"
            while not (metrics.is_file() and metrics.stat().st_size > 5_000):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_training_with_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    with _training(tmp_path) as process:
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    status, steps = output.split()
    assert status == "interrupted"
    assert "Traceback" not in errors
    run = engine.load(tmp_path)
    assert run.checkpoint.step == int(steps) > 0
    assert all(state.extra["steps"] == int(steps) for state in run.checkpoint.states.values())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("interrupted", int(steps))
    assert max(record.step for record in read_metrics(tmp_path)) == int(steps)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with _training(tmp_path, "slow-to-finish") as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "finishing\n"
        time.sleep(ONE_EVENT_SECONDS)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not (tmp_path / "summary.json").exists()
