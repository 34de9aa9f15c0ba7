"""Does a training on Ray end as it should when it is interrupted or killed, and leave no process behind?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import engine

pytestmark = pytest.mark.slow

GONE_WITHIN_SECONDS = 30.0

TRAIN = """
import sys
import engine
from engine import last_words

words = ["data.train_limit=44", "data.test_limit=20", "data.batch_size=12", "epochs=100000",
         "plan.report_every_steps=1", "plan.evaluate_every_epochs=100000", "plan.checkpoint_every_steps=5",
         "plan.recovery.max_failures=0"]
recipe, plan = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), words)
with last_words.said_as_object(True):
    result = engine.train(recipe, plan, sys.argv[1])
print(result.status, result.steps, flush=True)
"""


@contextmanager
def _training(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a training in a process group of its own; gives it and all processes that it started."""
    started: list[psutil.Process] = []
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            metrics = folder / "metrics.jsonl"
            while not (metrics.is_file() and metrics.stat().st_size > 20_000):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            started = psutil.Process(process.pid).children(recursive=True)
            names = ""
            for child in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    names += " ".join(["", *child.cmdline()])
            assert "raylet" in names
            assert "gcs_server" in names
            assert names.count("ray::LearnerActor") == 2
            yield process, started
        finally:
            for left in [*started, process]:
                try:
                    left.kill()
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue


# After a sudden end of all that they report to, these two try to report it for a minute.
AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")


def _assert_gone(processes: list[psutil.Process], with_agents: bool = True) -> None:
    if not with_agents:
        processes = [process for process in processes if not _name(process).startswith(AGENTS)]
    _, alive = psutil.wait_procs(processes, timeout=GONE_WITHIN_SECONDS)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, alive


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C", "SIGTERM"]
)
def test_interrupted(number: signal.Signals, whole_group: bool, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the whole group, Ray's processes and the actors included."""
    with _training(tmp_path) as (process, started):
        if whole_group:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        status, steps = output.split()
        assert status == "interrupted"
        run = engine.load(tmp_path)
        assert run.checkpoint.step == int(steps) > 0
        assert all(state.extra["steps"] == int(steps) for state in run.checkpoint.states.values())
        assert "Traceback" not in errors
        _assert_gone(started)


def test_a_killed_driver_leaves_nothing_running_and_its_checkpoints(tmp_path: Path) -> None:
    with _training(tmp_path) as (process, started):
        process.kill()
        process.wait(timeout=60)
        _assert_gone(started, with_agents=False)
    checkpoint = engine.load(tmp_path).checkpoint
    assert checkpoint.step >= 5
    assert checkpoint.step % 5 == 0


def test_everything_is_terminated_at_once(tmp_path: Path) -> None:
    """As a batch system does: Ray's own processes get the signal, too, and may be gone before the step is finished."""
    with _training(tmp_path) as (process, started):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        _assert_gone(started)
    assert engine.load(tmp_path).checkpoint.step >= 5


def test_the_raylet_dies(tmp_path: Path) -> None:
    """What counts is that it ends with a word, and that the checkpoints are whole."""
    with _training(tmp_path) as (process, started):
        next(child for child in started if child.name() == "raylet").kill()
        output, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        said = "the private Ray is gone: Ray's raylet ended with signal SIGKILL"
        assert said in errors
        # Where Ray ends the process; an error that reaches the command is made an object there.
        assert "Traceback" in errors or said in json.loads(output)["error"]
        _assert_gone(started, with_agents=False)
    assert engine.load(tmp_path).checkpoint.step >= 5
