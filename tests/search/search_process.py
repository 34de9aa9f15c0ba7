"""A search in a process of its own, which can be stopped in its middle, and what must come of it in the end."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet

import engine
from engine.tracking import read_metrics
from engine.training.folder import read_summary

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
