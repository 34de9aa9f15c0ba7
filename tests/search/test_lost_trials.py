"""Is a trial whose process is killed or stopped tried again, with the same end, until it is given up?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.search.search_process import (
    SEARCH,
    SECONDS,
    Alone,
    _assert_equals_trainings_alone,
    _assert_gone,
    _searching,
)

pytestmark = pytest.mark.slow


def _trainer(started: list[psutil.Process], pid: int, known: set[int]) -> psutil.Process | None:
    """The newest process that trains a trial; it trains the last one, of which it is certain that it has not ended."""
    found = [each for each in [*started, *psutil.Process(pid).children(recursive=True)] if each.pid not in known]
    with contextlib.suppress(psutil.NoSuchProcess):
        trainers = [each for each in found if each.is_running() and each.name().startswith("ray::ImplicitFunc")]
        return max(trainers, key=psutil.Process.create_time, default=None)
    return None


def test_a_trial_that_loses_its_process_is_tried_again_and_changes_nothing(
    words: list[str], tmp_path: Path, alone: Alone
) -> None:
    folder = tmp_path / "s"
    with _searching(words, folder) as (process, started):
        trainer = _trainer(started, process.pid, set())
        assert trainer is not None
        trainer.kill()
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "trial-0002 was lost: its process ended" in errors and "it is tried again (1 of 3)" in errors
    _assert_equals_trainings_alone(json.loads(output.splitlines()[-1]), folder, alone)


def test_a_trial_whose_process_is_stopped_is_ended_and_tried_again(words: list[str], tmp_path: Path) -> None:
    # The last trial still trains when it is stopped, however fast the machine is.
    (tmp_path / "own.py").write_text(SEARCH.replace("[1, 200, 101]", "[1, 200, 400]"))
    with _searching([*words, "plan.recovery.stall_seconds=4"], tmp_path / "s") as (process, started):
        trainer = _trainer(started, process.pid, set())
        assert trainer is not None
        trainer.suspend()
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert f"trial-0002 was lost: its process {trainer.pid} has been stopped since " in errors
    assert "and was ended; it is tried again (1 of 3)" in errors
    values = json.loads(output.splitlines()[-1])
    assert [trial["status"] for trial in values["trials"]] == ["finished"] * 3


def test_one_signal_ends_a_search_of_which_a_trial_is_stopped(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SEARCH.replace("[1, 200, 101]", "[1, 200, 100000]"))
    with _searching(words, tmp_path / "s") as (process, started):
        trainer = _trainer(started, process.pid, set())
        assert trainer is not None
        trainer.suspend()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130, errors
        _assert_gone(started)


def test_a_trial_that_is_lost_for_good_leaves_no_winner(words: list[str], tmp_path: Path) -> None:
    folder, killed = tmp_path / "s", set[int]()
    # Only two trials, so that the one that is killed again and again is the only one that trains.
    (tmp_path / "own.py").write_text(SEARCH.replace("[1, 200, 101]", "[1, 100000]"))
    words[words.index("--max-concurrent") + 1] = "1"
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
                if not list((folder / "trials" / "trial-0001" / "checkpoints").glob("*")):
                    continue
                with contextlib.suppress(psutil.NoSuchProcess):
                    trainer = _trainer([], process.pid, killed)
                    if trainer is not None:
                        killed.add(trainer.pid)
                        trainer.kill()
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 3, errors
    assert len(killed) == 4
    values = json.loads(output.splitlines()[-1])
    assert (values["status"], values["best"], values["pareto_front"]) == ("lost", None, [])
    assert [trial["status"] for trial in values["trials"]] == ["finished", "lost"]
    assert not any(name.startswith("test/") for trial in values["trials"] for name in trial["metrics"])
    assert "Best" not in (folder / "sweep.md").read_text()
