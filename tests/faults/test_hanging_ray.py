"""Does a command end on Ctrl-C, SIGTERM and a lost terminal, whatever of Ray hangs or is dead, and leave nothing?

Times are limits after which a process counts as hanging; a busy machine needs a good deal more than the ten seconds in
which an idle one is done.
"""

from __future__ import annotations

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

PATIENCE_SECONDS = 200.0
WORDS = [
    *("data.train_limit=44", "data.test_limit=20", "data.batch_size=12", "epochs=100000", "numerics.threads=1"),
    *("plan.report_every_steps=1", "plan.evaluate_every_epochs=100000", "plan.checkpoint_every_steps=5"),
]
NO_RECOVERY = "plan.recovery.max_failures=0"


@contextmanager
def command(folder: Path, *further: str) -> Iterator[subprocess.Popen[str]]:
    """Start a training by the command line, in a process group of its own; ends what is left of it."""
    with subprocess.Popen(
        [sys.executable, "-m", "engine", "train", "infopro_digits", *WORDS, *further, "--run-dir", str(folder / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                # What holds the private Ray then ends that, too.
                process.kill()


def wait_for(process: subprocess.Popen[str], is_there: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_there():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def below(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            found[child.name()] = child
        except psutil.NoSuchProcess:
            continue
    return found


def trains(folder: Path) -> bool:
    metrics = folder / "run" / "metrics.jsonl"
    return metrics.is_file() and metrics.stat().st_size > 20_000


def assert_nothing_is_left(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive


@pytest.mark.parametrize(
    ("victim", "fault"),
    [
        ("raylet", signal.SIGSTOP),
        ("gcs_server", signal.SIGSTOP),
        ("ray::LearnerActor", signal.SIGSTOP),
        ("gcs_server", signal.SIGKILL),
        ("raylet", signal.SIGKILL),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_signal_ends_a_training_in_which_something_hangs(
    victim: str, fault: signal.Signals, tmp_path: Path
) -> None:
    with command(tmp_path, NO_RECOVERY) as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        next(child for name, child in started.items() if name.startswith(victim)).send_signal(fault)
        if fault == signal.SIGSTOP:
            process.send_signal(signal.SIGHUP if victim == "gcs_server" else signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == (3 if fault == signal.SIGKILL else 130), errors
        assert "Traceback" not in errors
        if fault == signal.SIGKILL:
            assert f"local-learning: error: the private Ray is gone: Ray's {victim} ended with signal SIGKILL" in errors
        assert_nothing_is_left(list(started.values()))
    assert engine.load(tmp_path / "run").checkpoint.step >= 5


def test_a_training_whose_ray_dies_goes_on_with_another(tmp_path: Path) -> None:
    log = tmp_path / "run" / "log.txt"
    with command(tmp_path) as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        started["gcs_server"].kill()
        wait_for(process, lambda: "the team is started again" in log.read_text())
        size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
        wait_for(process, lambda: (tmp_path / "run" / "metrics.jsonl").stat().st_size > size + 20_000)
        started_again = below(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, errors
        assert (
            "the private Ray is gone: Ray's gcs_server ended with signal SIGKILL; the team is started again" in errors
        )
        assert "recovered" in output
        assert_nothing_is_left([*started.values(), *started_again.values()])


def test_a_signal_to_the_whole_group_leaves_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    with command(tmp_path) as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        os.killpg(process.pid, signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, errors
        assert f"interrupted after step {engine.load(tmp_path / 'run').checkpoint.step:,};" in output
        assert_nothing_is_left(list(started.values()))


def test_a_signal_to_the_whole_group_while_ray_starts(tmp_path: Path) -> None:
    with command(tmp_path) as process:
        wait_for(process, lambda: "gcs_server" in below(process))
        started = below(process)
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, errors
        assert errors.strip() == "local-learning: error: interrupted"
        assert_nothing_is_left(list(started.values()))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_part_of_ray_dies_while_a_training_is_interrupted(victim: str, tmp_path: Path) -> None:
    with command(tmp_path) as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        process.send_signal(signal.SIGINT)
        started[victim].kill()
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode in (3, 130), errors
        assert "Traceback" not in errors
        assert process.returncode == 130 or f"the private Ray is gone: Ray's {victim} ended with" in errors
        assert_nothing_is_left(list(started.values()))
    assert engine.load(tmp_path / "run").checkpoint.step >= 5


def test_the_raylet_dies_at_the_start(tmp_path: Path) -> None:
    with command(tmp_path, NO_RECOVERY) as process:
        wait_for(process, lambda: "raylet" in below(process))
        started = below(process)
        started["raylet"].kill()
        _, errors = process.communicate(timeout=2 * PATIENCE_SECONDS)
        assert process.returncode in (2, 3), errors
        assert "Traceback" not in errors
        assert "local-learning: error: " in errors
        assert_nothing_is_left(list(started.values()))


def test_a_learner_that_is_stopped_is_noticed_and_the_training_goes_on(tmp_path: Path) -> None:
    log, metrics = tmp_path / "run" / "log.txt", tmp_path / "run" / "metrics.jsonl"
    with command(tmp_path, "plan.recovery.stall_seconds=5") as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        victim = next(child for name, child in started.items() if name.startswith("ray::LearnerActor"))
        # For a while, which nobody minds.
        victim.suspend()
        time.sleep(1.0)
        victim.resume()
        size = metrics.stat().st_size
        wait_for(process, lambda: metrics.stat().st_size > size + 20_000)
        assert "no progress" not in log.read_text()
        victim.suspend()
        wait_for(process, lambda: "it alone is started again" in log.read_text())
        size = metrics.stat().st_size
        wait_for(process, lambda: metrics.stat().st_size > size + 20_000)
        started_again = below(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, errors
        assert f"its process {victim.pid} made no progress for " in output
        assert "did not answer when it was asked for its stacks" in log.read_text()
        assert_nothing_is_left([*started.values(), *started_again.values()])


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_part_of_ray_that_is_stopped_is_noticed_and_the_training_goes_on(victim: str, tmp_path: Path) -> None:
    log, metrics = tmp_path / "run" / "log.txt", tmp_path / "run" / "metrics.jsonl"
    with command(tmp_path, "plan.recovery.stall_seconds=6") as process:
        wait_for(process, lambda: trains(tmp_path))
        started = below(process)
        # For a while, which nobody minds.
        started[victim].suspend()
        time.sleep(2.0)
        started[victim].resume()
        size = metrics.stat().st_size
        wait_for(process, lambda: metrics.stat().st_size > size + 20_000)
        assert "has been stopped" not in log.read_text()
        started[victim].suspend()
        wait_for(process, lambda: "the team is started again" in log.read_text())
        wait_for(process, lambda: "goes on from" in log.read_text())
        size = metrics.stat().st_size
        wait_for(process, lambda: metrics.stat().st_size > size + 20_000)
        started_again = below(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, errors
        said = f"the private Ray is gone: Ray's {victim} hangs: process {started[victim].pid} has been stopped since "
        assert said in log.read_text()
        assert said in errors and "recovered" in output
        assert_nothing_is_left([*started.values(), *started_again.values()])
