"""Do trials of several actors never wait for one another for ever?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine.recipes import Plan
from engine.training.folder import read_summary
from tests.search.search_process import SECONDS

pytestmark = pytest.mark.slow

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
