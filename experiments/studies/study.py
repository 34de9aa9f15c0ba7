"""A study: arms under one budget, their seeds, and the claims of papers that they test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import engine

Results = Mapping[str, Mapping[int, engine.Result]]
"""The finished runs of a study, by arm and seed."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        recipe: name of a shipped one.
        changes: its fields that are not as shipped, beside those of the study's budget.
        learning_rates: of which the best on held-out images is taken; those of the study unless given, and none for an
            arm that has the recipe's.
    """

    recipe: str
    changes: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Claim:
    """What a paper claims, as a gain of one arm over another with the same seed.

    Attributes:
        words: the claim.
        source: the paper.
        arm: which should be the better one.
        over: which it is compared with.
    """

    words: str
    source: str
    arm: str
    over: str


@dataclass(frozen=True)
class Study:
    """Arms that are trained under one budget with the same seeds.

    Attributes:
        name: by which it is started.
        about: a sentence that says what is trained on what.
        arms: by what readers know them by, the baseline first.
        budget: fields of all arms, such as ``epochs=12``.
        seeds: with which each arm is trained for the result.
        needs_images: whether a folder with images must be given.
        learning_rates: of which each arm gets its own best one, by the mean score on held-out images; none if recipes
            keep their own.
        choosing_seeds: with which these are tried; they are no part of the result.
        draws_images: whether each seed draws training images of its own (`data.subset_seed`), so that intervals hold
            for other images of the data set, too, and not for these alone.
        claims: what the arms test.
        further: makes further tables as Markdown by name, and pictures in the folder that it is given.
    """

    name: str
    about: str
    arms: Mapping[str, Arm]
    budget: tuple[str, ...]
    seeds: tuple[int, ...]
    needs_images: bool = False
    learning_rates: tuple[float, ...] = ()
    choosing_seeds: tuple[int, ...] = ()
    draws_images: bool = False
    claims: tuple[Claim, ...] = ()
    further: Callable[[Results, Path], dict[str, str]] | None = None

    @property
    def baseline(self) -> str:
        """The arm that gains are over."""
        return next(iter(self.arms))

    def rates_of(self, label: str) -> tuple[float, ...]:
        """Return the learning rates of which an arm gets the best; none if its recipe keeps its own."""
        own = self.arms[label].learning_rates
        return self.learning_rates if own is None else own

    def part(self, number: int, parts: int) -> list[str]:
        """Return the arms that are trained in a part of the study; those of one recipe are never in two parts.

        Args:
            number: of the part, from 1.
            parts: how many there are.
        """
        names = list(dict.fromkeys(arm.recipe for arm in self.arms.values()))
        return [label for label, arm in self.arms.items() if names.index(arm.recipe) % parts == number - 1]

    def job(
        self, label: str, seed: int, learning_rate: float | None, root: str | None
    ) -> tuple[engine.Recipe, engine.Plan]:
        """Return what is trained of an arm.

        Args:
            label: the arm.
            seed: of the run.
            learning_rate: the recipe's own if None.
            root: folder with the images, where the study needs one.
        """
        arm = self.arms[label]
        words = [*self.budget, *arm.changes, f"seed={seed}"]
        if self.draws_images:
            words.append(f"data.subset_seed={seed}")
        if learning_rate is not None:
            words.append(f"optimizer.learning_rate={learning_rate}")
        if root is not None:
            words.append(f"data.root={root}")
        return engine.apply_overrides(engine.load_recipe(arm.recipe), engine.Plan(), words)


def scores_of(runs: Mapping[int, engine.Result], name: str) -> Sequence[float]:
    """Return a score of all runs of an arm, in the order of the seeds, such as that of ``peer0/test/accuracy``."""
    return [result.metrics[name] for result in runs.values()]
