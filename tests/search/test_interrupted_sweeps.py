"""Does a search outlive Ctrl-C and the death of its process, and do trials of several actors never wait for ever?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

import engine
from engine.recipes import Plan, recipe_identity
from engine.tracking import read_metrics
from engine.training.folder import read_summary

pytestmark = pytest.mark.slow

SECONDS = 400.0

# One short trial that ends, and two long ones in whose middle the search is stopped. The second starts when the first
# makes room for it, and a worker may take longer to start than a hundred epochs of the other last.
SEARCH = """
import engine
from ray import tune

def sweep():
    return engine.Sweep(
        name="three",
        recipe="greedy_digits",
        space={"epochs": tune.grid_search([1, 200, 101])},
        fields=("backbone.widths=4,4,4", "data.train_limit=44", "data.test_limit=20", "data.batch_size=12",
                "data.validation_fraction=0.2", "method.num_segments=2"),
        searcher="grid",
    )
"""

NESTED = """
import sys
import engine
from ray import tune
from engine.runtimes.ray import start_private_ray

start_private_ray(num_cpus=2)
found = engine.sweep(
    engine.Sweep(
        name="nested",
        recipe="greedy_digits",
        space={"seed": tune.grid_search([0, 1, 2, 3])},
        fields=("epochs=1", "backbone.widths=4,4,4", "data.train_limit=44", "data.test_limit=20",
                "data.batch_size=12", "data.validation_fraction=0.2", "method.num_segments=2"),
        searcher="grid",
    ),
    plan=engine.Plan(executor="ray", cpus_per_learner=0.5),
    run_dir=sys.argv[1],
)
print(found.status, found.at_once, *(trial.status for trial in found.trials), flush=True)
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command; it is the same every time."""
    (tmp_path / "own.py").write_text(SEARCH)
    more = ["--run-dir", str(tmp_path / "s"), "--max-concurrent", "2", "--json"]
    return [sys.executable, "-m", "engine", "sweep", str(tmp_path / "own.py"), *more]


@contextmanager
def _searching(words: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a search in a process group of its own; gives it when the short trial is finished and the last trains."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        started: list[psutil.Process] = []
        try:
            deadline = time.monotonic() + SECONDS
            while not _is_in_the_middle(folder):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            started = psutil.Process(process.pid).children(recursive=True)
            assert started
            yield process, started
        finally:
            for left in [process, *started]:
                try:
                    left.kill()
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue


def _is_in_the_middle(folder: Path) -> bool:
    log = folder / "trials.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    states = {values["number"]: values["status"] for values in map(json.loads, (x for x in lines if x.endswith("\n")))}
    checkpoints = [list((folder / "trials" / f"trial-000{n}" / "checkpoints").glob("*")) for n in (1, 2)]
    return (states.get(0), states.get(2)) == ("finished", "running") and all(checkpoints)


def _assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


Alone = Callable[[engine.Recipe], engine.Result]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Train a trial's recipe outside of any search, once for all tests."""
    results: dict[str, engine.Result] = {}

    def train(recipe: engine.Recipe) -> engine.Result:
        identity = recipe_identity(recipe)
        if identity not in results:
            # Evaluations and checkpoints change no weight, and take most of the time of epochs as short as these.
            plan = Plan(
                executor="process", evaluate_test=False, evaluate_every_epochs=1000, checkpoint_every_steps=100_000
            )
            results[identity] = engine.train(recipe, plan, tmp_path_factory.mktemp("alone") / "run")
        return results[identity]

    return train


def _assert_equals_trainings_alone(values: dict[str, Any], folder: Path, alone: Alone) -> None:
    """Compare what a search gave with what each of its trials gives outside of it."""
    assert values["status"] == "finished"
    assert [trial["status"] for trial in values["trials"]] == ["finished"] * 3
    for number, trial in enumerate(values["trials"]):
        path = folder / "trials" / f"trial-000{number}"
        expected = alone(engine.load_recipe(path / "recipe.json"))
        summary = read_summary(path)
        assert summary is not None
        assert summary["weights_sha256"] == expected.weights_sha256
        assert trial["epochs"] == expected.epochs
        assert {n: trial["metrics"][n] for n in trial["metrics"] if n.startswith("validation/")} == expected.metrics
        places = [(r.step, r.learner, r.split, r.name) for r in read_metrics(path)]
        assert len(places) == len(set(places)), "a step was recorded twice"
    best = max(values["trials"], key=lambda trial: (trial["metrics"]["validation/accuracy"], -trial["number"]))
    assert values["best"] == best["number"]
    assert [n for n, trial in enumerate(values["trials"]) if "test/accuracy" in trial["metrics"]] == [values["best"]]
    assert pyarrow.parquet.read_table(folder / "trials.parquet").num_rows == 3


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


def test_trials_of_two_actors_on_two_cpus_never_wait_for_ever(tmp_path: Path) -> None:
    """Six trials want two actors of half a CPU each: room for two trials, if none holds half of what it needs."""
    words = [sys.executable, "-c", NESTED, str(tmp_path / "s")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert output.split() == ["finished", "2", *["finished"] * 4]
    trained = engine.load(tmp_path / "s" / "trials" / "trial-0000")
    # The team of actors has trained what one process trains.
    alone = engine.train(trained.recipe, Plan(executor="process", evaluate_test=False), tmp_path / "alone")
    summary = read_summary(trained.path)
    assert summary is not None and summary["weights_sha256"] == alone.weights_sha256
