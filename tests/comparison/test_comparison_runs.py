"""Do the runs of a comparison end with it, whatever happens to it or to one of them?"""

from __future__ import annotations

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

SECONDS = 120.0
LABELS = ("end_to_end_digits", "greedy_digits")

COMPARE = """
import sys
import engine

words = ["data.train_limit=44", "data.test_limit=20", "data.batch_size=12", f"epochs={sys.argv[2]}",
         "plan.executor=process", "plan.report_every_steps=1", "plan.evaluate_every_epochs=100000",
         "plan.checkpoint_every_steps=400000", *sys.argv[3:]]
recipes, plan = {}, engine.Plan()
for name in ("end_to_end_digits", "greedy_digits"):
    recipes[name], plan = engine.apply_overrides(engine.load_recipe(name), engine.Plan(), words)
found = engine.compare(recipes, plan, (5,), sys.argv[1], max_concurrent=2)
print(found.status, *(row.failures for row in found.rows), flush=True)
"""


@contextmanager
def _comparing(
    folder: Path, epochs: int, *further: str
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a comparison in a process group of its own; gives it and its two runs when both of them train."""
    runs: list[psutil.Process] = []
    with subprocess.Popen(
        [sys.executable, "-c", COMPARE, str(folder), str(epochs), *further],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            metrics = [folder / "runs" / f"{label}-seed5" / "metrics.jsonl" for label in LABELS]
            while not all(path.is_file() and path.stat().st_size > 3_000 for path in metrics):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            runs = psutil.Process(process.pid).children()
            assert len(runs) == 2
            yield process, runs
        finally:
            for left in [*runs, process]:
                try:
                    left.kill()
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue


def _assert_gone(runs: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(runs, timeout=SECONDS)
    assert not [run for run in alive if run.is_running() and run.status() != psutil.STATUS_ZOMBIE]


def _assert_stopped_at_a_checkpoint(folder: Path) -> None:
    for label in LABELS:
        run = folder / "runs" / f"{label}-seed5"
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert engine.load(run).checkpoint.step == summary["steps"] > 0


def test_terminated(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", epochs=100_000) as (process, runs):
        process.terminate()
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert output.split()[0] == "interrupted"
        assert "Traceback" not in errors
        _assert_gone(runs)
    _assert_stopped_at_a_checkpoint(tmp_path / "c")


def test_a_killed_comparison_leaves_no_run_behind(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", epochs=100_000) as (process, runs):
        process.kill()
        process.wait(timeout=SECONDS)
        _assert_gone(runs)
    _assert_stopped_at_a_checkpoint(tmp_path / "c")


def test_a_resumed_comparison_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", epochs=300) as (process, runs):
        # As a terminal does with Ctrl-C: the whole group gets the signal.
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=SECONDS)[0].split()[0] == "interrupted"
        _assert_gone(runs)
    again = subprocess.run(
        [sys.executable, "-c", COMPARE, str(tmp_path / "c"), "300"], capture_output=True, text=True, timeout=SECONDS
    )
    assert again.stdout.split()[0] == "finished", again.stderr
    for label in LABELS:
        run = engine.load(tmp_path / "c" / "runs" / f"{label}-seed5")
        plan = engine.Plan(executor="process", evaluate_every_epochs=300, checkpoint_every_steps=1200)
        straight = engine.train(run.recipe, plan, tmp_path / label)
        resumed = json.loads((run.path / "summary.json").read_text())
        assert resumed["weights_sha256"] == straight.weights_sha256
        assert "goes on from" in (run.path / "log.txt").read_text()


def test_a_run_that_is_killed_stops_no_other(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", epochs=300) as (process, runs):
        runs[0].kill()
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert output.split()[0] == "failed"
    assert output.count("its process was ended by SIGKILL, as when memory runs out") == 1
    table = (tmp_path / "c" / "comparison.md").read_text()
    assert "SIGKILL" in table
    assert "0 of 1, 1 failed" in table


def test_a_run_that_is_stopped_is_ended_and_stops_no_other(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", 300, "plan.recovery.stall_seconds=4") as (process, runs):
        runs[0].suspend()
        output, errors = process.communicate(timeout=SECONDS)
        _assert_gone(runs)
    assert process.returncode == 0, errors
    assert output.split()[0] == "failed"
    assert output.count(f"its process {runs[0].pid} has been stopped since ") == 1
    assert "0 of 1, 1 failed" in (tmp_path / "c" / "comparison.md").read_text()


def test_one_signal_ends_a_comparison_of_which_a_run_is_stopped(tmp_path: Path) -> None:
    with _comparing(tmp_path / "c", epochs=100_000) as (process, runs):
        runs[0].suspend()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert output.split()[0] == "interrupted"
        _assert_gone(runs)
    summaries = [tmp_path / "c" / "runs" / f"{label}-seed5" / "summary.json" for label in LABELS]
    assert [path.is_file() for path in summaries].count(True) == 1
