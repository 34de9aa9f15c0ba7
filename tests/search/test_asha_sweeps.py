"""Does ASHA stop the trials that are behind and free their actors, and finish those that train to the end?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ray import tune

import engine
from engine.recipes import Plan
from engine.search import Sweep, sweep
from engine.tracking import read_metrics
from engine.training import evaluate
from engine.training.folder import read_summary

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 2


@pytest.mark.slow
def test_trials_that_are_behind_stop_and_free_their_actors(
    make_sweep: Callable[..., Sweep], assert_given_back: Callable[[int], None], tmp_path: Path
) -> None:
    """On two CPUs a trial of two actors leaves no room, so the next one starts only when all of it has been freed."""
    definition = make_sweep(
        space={"optimizer.learning_rate": tune.grid_search([0.05, 1e-6, 1e-7])},
        fields=("epochs=4", "method.num_segments=2"),
        metric="validation/loss",
        searcher="grid",
        scheduler="asha",
        grace_epochs=1,
        reduction_factor=2,
    )
    plan = Plan(executor="ray", cpus_per_learner=1, report_every_steps=1)
    result = sweep(definition, plan=plan, run_dir=tmp_path / "s")
    assert result.at_once == 1
    assert [trial.status for trial in result.trials] == ["finished", "pruned", "pruned"]
    assert [trial.epochs for trial in result.trials] == [4, 1, 1]
    assert result.best is result.trials[0]
    assert_given_back(2)
    for trial in result.trials[1:]:
        folder = result.run_dir / "trials" / trial.name
        assert max(record.epoch for record in read_metrics(folder) if record.split == "validation") < 4
        # It goes on as any run does.
        assert engine.load(folder).checkpoint.step >= 4
        assert "test/accuracy" in evaluate(engine.load(folder))


@pytest.mark.slow
def test_a_trial_that_trains_to_the_end_is_finished_whatever_the_scheduler_says(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """A look of ASHA may fall on the last epoch; there is nothing left to save then."""
    definition = make_sweep(
        space={"optimizer.learning_rate": tune.grid_search([0.05, 1e-6])},
        fields=("epochs=2", "method.num_segments=1"),
        metric="validation/loss",
        searcher="grid",
        scheduler="asha",
        grace_epochs=2,
        reduction_factor=2,
    )
    result = sweep(definition, run_dir=tmp_path / "s", max_concurrent=1)
    assert [(trial.status, trial.epochs) for trial in result.trials] == [("finished", 2), ("finished", 2)]
    summary = read_summary(tmp_path / "s" / "trials" / "trial-0001")
    assert summary is not None and summary["status"] == "finished"
