"""Does a search that a signal or a kill ends leave nothing running, and go on to the same end?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

import engine
from tests.search.search_process import SECONDS, Alone, _assert_equals_trainings_alone, _assert_gone, _searching

pytestmark = pytest.mark.slow


def _assert_goes_on_to_the_same_end(
    words: list[str], folder: Path, alone: Alone, finished_at: int, steps: dict[int, int]
) -> None:
    """Give the same command again; ``steps``: the newest checkpoint of each long trial when it was given."""
    again = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    values = json.loads(again.stdout.splitlines()[-1])
    _assert_equals_trainings_alone(values, folder, alone)
    # What was finished was not trained again, and what was running went on from its checkpoint.
    assert (folder / "trials" / "trial-0000" / "summary.json").stat().st_mtime_ns == finished_at
    for number in range(3):
        lines = (folder / "trials" / f"trial-000{number}" / "log.txt").read_text().splitlines()
        starts = sum("segment0 lives in" in line for line in lines)
        went_on = [int(line.partition("(step ")[2].split()[0]) for line in lines if "goes on from" in line]
        # The first long trial may have reached its end before the search was stopped; the last one cannot have.
        assert starts in {0: [1], 1: [1, 2], 2: [2]}[number]
        assert len(went_on) == starts - 1
        assert all(step >= steps[number] for step in went_on)


def _checkpoints(folder: Path) -> dict[int, int]:
    """The newest whole checkpoint of each long trial, in steps."""
    return {n: engine.load(folder / "trials" / f"trial-000{n}").checkpoint.step for n in (1, 2)}


def test_a_killed_search_goes_on_where_it_was(words: list[str], tmp_path: Path, alone: Alone) -> None:
    folder = tmp_path / "s"
    with _searching(words, folder) as (process, started):
        finished_at = (folder / "trials" / "trial-0000" / "summary.json").stat().st_mtime_ns
        process.kill()
        process.wait(timeout=SECONDS)
        steps = _checkpoints(folder)
        # At once, as an impatient person does: what is dying still may hold the folders of its trials.
        _assert_goes_on_to_the_same_end(words, folder, alone, finished_at, steps)
        _assert_gone(started)


def test_ctrl_c_ends_with_130_and_leaves_nothing_running(words: list[str], tmp_path: Path, alone: Alone) -> None:
    folder = tmp_path / "s"
    with _searching(words, folder) as (process, started):
        finished_at = (folder / "trials" / "trial-0000" / "summary.json").stat().st_mtime_ns
        # As a terminal does: the whole group gets the signal.
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        values = json.loads(output.splitlines()[-1])
        # Where the machine is too slow to end in order, the command has ended without a table.
        assert values.get("status", values.get("error")) == "interrupted"
        assert "trials" not in values or [trial["status"] for trial in values["trials"]] in (
            ["finished", "running", "running"],
            ["finished", "finished", "running"],
        )
        noted = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        assert not any(name.startswith("test/") for trial in noted for name in trial["metrics"])
        _assert_gone(started)
        steps = _checkpoints(folder)
    _assert_goes_on_to_the_same_end(words, folder, alone, finished_at, steps)


@pytest.mark.parametrize("moment", ["Ray starts", "trials run"])
@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGTERM, True), (signal.SIGHUP, False)], ids=["scheduler", "terminal"]
)
def test_other_signals_mean_the_same(
    words: list[str], tmp_path: Path, moment: str, number: signal.Signals, whole_group: bool
) -> None:
    folder = tmp_path / "s"
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            # The folder is taken just before Ray is started.
            awaited = folder / ("sweep.json" if moment == "Ray starts" else "trials/trial-0001/recipe.json")
            deadline = time.monotonic() + SECONDS
            while not awaited.is_file():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            started = psutil.Process(process.pid).children(recursive=True)
            (os.killpg if whole_group else os.kill)(process.pid, number)
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in output.splitlines()[-1]
    _assert_gone(started)
