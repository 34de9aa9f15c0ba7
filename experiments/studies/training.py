"""Trains the runs of a study one after another in this process, and goes on where it was interrupted.

Not `engine.compare`: a run here takes seconds, as long as a process takes to start; the learning rates have to be
chosen in between; and runs that two studies share are trained once.
"""

from __future__ import annotations

import dataclasses
import io
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import engine
from engine.comparison import ComparedRecipe
from engine.comparison.result import compared_recipe
from engine.errors import FolderHeld, LearnerDiverged
from engine.methods import method_of
from engine.recipes import recipe_identity
from engine.tasks import ACCURACY
from engine.tracking import format_seconds, open_console
from engine.tracking.scores import best_first, format_score
from engine.training.folder import SUMMARY
from experiments.studies.study import Study

_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Choice:
    """The learning rate of an arm, and what it was chosen by.

    Attributes:
        learning_rate: None for the recipe's own.
        held_out: mean accuracy on held-out images, by learning rate; empty where there was nothing to choose.
        failures: why others were not eligible, by learning rate.
    """

    learning_rate: float | None
    held_out: Mapping[float, float] = field(default_factory=dict)
    failures: Mapping[float, str] = field(default_factory=dict)

    @property
    def as_good(self) -> tuple[float, ...]:
        """The other rates with the same mean, of which the smallest was taken."""
        best = self.held_out.get(self.learning_rate) if self.learning_rate is not None else None
        return tuple(rate for rate, mean in self.held_out.items() if mean == best and rate != self.learning_rate)

    @property
    def is_at_edge(self) -> bool:
        """Whether it, or one as good, is the smallest or largest that was tried: a better one may lie beyond."""
        tried = {*self.held_out, *self.failures}
        return bool(tried) and bool({self.learning_rate, *self.as_good} & {min(tried), max(tried)})

    @property
    def words(self) -> str:
        """The rate, which others are as good, and whether a better one may lie beyond."""
        ties = f", as good as {_listed(self.as_good)}" if self.as_good else ""
        edge = ", at the edge" if self.is_at_edge else ""
        return f"{self.learning_rate:g}{ties}{edge}"


@dataclass
class Trained:
    """The runs of an arm with one learning rate.

    Attributes:
        label: of the arm.
        choice: of its learning rate.
        results: of finished runs that lost no peer, by seed.
        failures: why others failed, by seed.
    """

    label: str
    choice: Choice
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
        found = compared_recipe(self.label, run.recipe, team, self.results, self.failures, flops_per_image, ACCURACY)
        return dataclasses.replace(found, images_per_second=None)


def check_images(arms: Iterable[Trained]) -> None:
    """Refuse arms that were trained on different images with the same seed, such as on two machines.

    Raises:
        RunError: they were, or a run has no checkpoint left that says on which.
    """
    first: dict[object, tuple[str, Path]] = {}
    for run_dir in (result.run_dir for arm in arms for result in arm.results.values()):
        run = engine.load(run_dir)
        data = dataclasses.replace(run.recipe.data, root=None)
        fingerprint, other = first.setdefault(repr(data), (run.facts.fingerprint, run_dir))
        if fingerprint != run.facts.fingerprint:
            raise engine.RunError(
                f"{run_dir}: was trained on other images than {other}, and both are of one seed; move away those of "
                "the wrong images, and the same command trains them anew"
            )


class Trainer:
    """Trains runs of a study into folders below one folder, or returns what they came to.

    A run in which learning diverges has failed, and so has one of a cohort that goes on without a peer which did:
    the score of who is left is not the arm's. Any other error ends the study.

    Args:
        study: what is trained.
        root: folder with the images, where the study needs one.
        folder: below which each run has a folder, named by its recipe and a digest of all that decides its weights.
    """

    def __init__(self, study: Study, root: str | None, folder: Path) -> None:
        self._study, self._root, self._folder = study, root, folder

    def choose_rates(self, labels: Sequence[str]) -> dict[str, Choice]:
        """Return the learning rate of each arm: that with the best mean score on held-out images.

        A rate with which a run fails is not taken. The test images have no say.

        Raises:
            RunError: an arm fails with every rate.
            LearnerError: a run failed otherwise than by diverging.
        """
        return {label: self._chosen(label) for label in labels}

    def train(self, choices: Mapping[str, Choice], seeds: Iterable[int]) -> dict[str, Trained]:
        """Train arms with their learning rates, a seed of all arms before the next one.

        What an interruption leaves can so be compared in pairs.

        Raises:
            LearnerError: a run failed otherwise than by diverging.
        """
        found = {label: Trained(label, choice) for label, choice in choices.items()}
        for seed in seeds:
            for trained in found.values():
                self._train(trained, seed)
        return found

    def _chosen(self, label: str) -> Choice:
        rates = self._study.rates_of(label)
        if len(rates) < 2:
            return Choice(rates[0] if rates else None)
        means, failures = dict[float, float](), dict[float, str]()
        for rate in rates:
            trained = Trained(label, Choice(rate))
            for seed in self._study.choosing_seeds:
                self._train(trained, seed)
            if trained.failures:
                failures[rate] = "; ".join(f"seed {seed}: {reason}" for seed, reason in trained.failures.items())
            else:
                # Means that differ by rounding alone are equal.
                means[rate] = round(statistics.fmean(trained.compared().validation_scores.values()), 9)
        if not means:
            raise engine.RunError(f"{label}: fails with every learning rate that is tried ({_listed(rates)})")
        choice = Choice(best_first(ACCURACY, means)[0], means, failures)
        _tell(f"{label}: learning rate {choice.words} (held-out images: {_shown(means)})")
        return choice

    def _train(self, trained: Trained, seed: int) -> None:
        recipe, plan = self._study.job(trained.label, seed, trained.choice.learning_rate, self._root)
        folder = self._folder / f"{recipe.name}-{recipe_identity(recipe)[:12]}"
        what = f"{trained.label}, learning rate {recipe.optimizer.learning_rate:g}, seed {seed}"
        try:
            result = _result(recipe, plan, folder, what)
        except LearnerDiverged as error:
            trained.failures[seed] = str(error).splitlines()[0]
        except engine.RunError as error:
            raise engine.RunError(
                f"{what}: {error}; or move {folder} away, and the same command trains it anew"
            ) from error
        else:
            if result.status != "finished":
                raise KeyboardInterrupt
            if result.diverged:
                left = [f"{learner} has left the cohort: {reason}" for learner, reason in result.diverged.items()]
                trained.failures[seed] = "; ".join(left).splitlines()[0]
        if seed in trained.failures:
            _tell(f"{what} failed: {trained.failures[seed]}")
            return
        trained.results[seed] = result
        score = "no score" if result.test_score is None else format_score(ACCURACY, result.test_score)
        _tell(f"{what}: {score}, {format_seconds(result.seconds)}")


def _result(recipe: engine.Recipe, plan: engine.Plan, folder: Path, what: str) -> engine.Result:
    """Train a run, or return what it came to; one that another study has in hand is waited for."""
    waits, is_there = False, (folder / SUMMARY).exists()
    while True:
        heard = io.StringIO()
        try:
            result = engine.train(recipe, plan, folder, console=open_console(heard, quiet=True))
            # What a run that is trained has to say stands in its log.txt.
            for line in heard.getvalue().splitlines() if is_there else ():
                if "is finished already" not in line:
                    _tell(f"{what}: {line}")
            return result
        except FolderHeld:
            if not waits:
                _tell(f"{what}: waits for another process, which trains it ({folder})")
            waits = True
            time.sleep(_PAUSE_SECONDS)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _listed(rates: Iterable[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _shown(means: Mapping[float, float]) -> str:
    return ", ".join(f"{rate:g}: {format_score(ACCURACY, mean)}" for rate, mean in means.items())
