"""What do the tests of comparisons share: two recipes, and a runner that trains them in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import engine
from engine.errors import LearnerError
from engine.recipes import EndToEnd, Greedy, Recipe

PLAN = engine.Plan(executor="process")


class Runner:
    """Trains in this process, where starting one for each run would take most of the time."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []
        self.stop_after: int | None = None

    def __call__(self, jobs: Any, plan: Any, slots: Any, started: Any, ended: Any) -> bool:
        for job in jobs:
            if len(self.trained) == self.stop_after:
                return False
            started(job)
            self.trained.append((job.label, job.recipe.seed))
            try:
                engine.train(job.recipe, plan, job.run_dir)
                ended(job, None)
            except LearnerError as error:
                ended(job, str(error))
        return True


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    found = Runner()
    # The picture takes longer than the training, and has its own tests.
    monkeypatch.setattr(
        "engine.comparison.driver.plot_compared", lambda rows, seeds, headline, path, title: path.touch()
    )
    monkeypatch.setattr("engine.comparison.driver.run_jobs", found)
    return found


@pytest.fixture
def recipes(tiny_recipe: Callable[..., Recipe]) -> dict[str, Recipe]:
    return {
        "whole": tiny_recipe(name="whole", method=EndToEnd(), epochs=1),
        "cut": tiny_recipe(name="cut", method=Greedy(num_segments=2), epochs=1),
    }
