"""Trains the runs of a study one after another in this process, and goes on where it was interrupted.

Not `engine.compare`: a run here takes seconds, as long as a process takes to start; the learning rates have to be
chosen in between; and runs that two studies share are trained once.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import engine
from engine.comparison import ComparedRecipe
from engine.comparison.result import compared_recipe
from engine.methods import method_of
from engine.recipes import recipe_identity
from engine.tasks import ACCURACY
from engine.tracking import format_seconds, open_console
from engine.tracking.scores import best_first, format_score
from experiments.studies.study import Study


@dataclass
class Trained:
    """The runs of an arm with one learning rate.

    Attributes:
        label: of the arm.
        learning_rate: None for the recipe's own.
        results: of finished runs, by seed.
        failures: why others failed, by seed.
    """

    label: str
    learning_rate: float | None
    results: dict[int, engine.Result] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def compared(self, flops_per_image: float | None = None) -> ComparedRecipe:
        """Return scores and costs; without the time, for runs are made beside other work.

        Raises:
            RunError: no run has finished.
        """
        if not self.results:
            raise engine.RunError(
                f"{self.label}: every run failed, the last one so: {list(self.failures.values())[-1]}"
            )
        run = engine.load(next(iter(self.results.values())).run_dir)
        team = method_of(run.recipe).team(run.recipe, run.facts)
        found = compared_recipe(self.label, team, self.results, self.failures, flops_per_image, ACCURACY)
        return dataclasses.replace(found, images_per_second=None)


class Trainer:
    """Trains runs of a study into folders below one folder, or returns what they came to.

    Args:
        study: what is trained.
        root: folder with the images, where the study needs one.
        folder: below which each run has a folder, named by its recipe and a digest of all that decides its weights.
    """

    def __init__(self, study: Study, root: str | None, folder: Path) -> None:
        self._study, self._root, self._folder = study, root, folder

    def choose_rates(self, labels: Sequence[str]) -> dict[str, float | None]:
        """Return the learning rate of each arm: that with the best mean score on held-out images.

        A rate with which a run fails is not taken. The test images have no say.

        Raises:
            RunError: an arm fails with every rate.
        """
        return {label: self._rate(label) for label in labels}

    def train(self, rates: Mapping[str, float | None], seeds: Iterable[int]) -> dict[str, Trained]:
        """Train arms with their learning rates, a seed of all arms before the next one.

        What an interruption leaves can so be compared in pairs.
        """
        found = {label: Trained(label, rate) for label, rate in rates.items()}
        for seed in seeds:
            for trained in found.values():
                self._train(trained, seed)
        return found

    def _rate(self, label: str) -> float | None:
        rates = self._study.rates_of(label)
        if len(rates) < 2:
            return rates[0] if rates else None
        means = {}
        for rate in rates:
            trained = Trained(label, rate)
            for seed in self._study.choosing_seeds:
                self._train(trained, seed)
            if not trained.failures:
                means[rate] = statistics.fmean(trained.compared().validation_scores.values())
        if not means:
            raise engine.RunError(f"{label}: fails with every learning rate that is tried ({_listed(rates)})")
        chosen = best_first(ACCURACY, means)[0]
        _tell(f"{label}: learning rate {chosen:g} (held-out images: {_shown(means)})")
        return chosen

    def _train(self, trained: Trained, seed: int) -> None:
        recipe, plan = self._study.job(trained.label, seed, trained.learning_rate, self._root)
        name = f"{recipe.name}-{recipe_identity(recipe)[:12]}"
        what = f"{trained.label}, learning rate {recipe.optimizer.learning_rate:g}, seed {seed}"
        try:
            # What it has to say stands in its log.txt.
            result = engine.train(recipe, plan, self._folder / name, console=open_console(None, quiet=True))
        except engine.LearnerError as error:
            trained.failures[seed] = str(error).splitlines()[0]
            _tell(f"{what} failed: {trained.failures[seed]}")
            return
        if result.status != "finished":
            raise KeyboardInterrupt
        trained.results[seed] = result
        score = "no score" if result.test_score is None else format_score(ACCURACY, result.test_score)
        _tell(f"{what}: {score}, {format_seconds(result.seconds)}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _listed(rates: Iterable[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _shown(means: Mapping[float, float]) -> str:
    return ", ".join(f"{rate:g}: {format_score(ACCURACY, mean)}" for rate, mean in means.items())
