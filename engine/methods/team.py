"""What a method makes of a recipe: learners by name, and the programs that they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.data import Facts
from engine.learners import Learner
from engine.program import Program
from engine.recipes import Recipe


@dataclass(frozen=True)
class LearnerSummary:
    """What a learner will hold, known before anything is built.

    Attributes:
        name: unique in the team.
        blocks: names of the blocks of its body.
        parameters: number of trained values in the body.
        auxiliary_parameters: number of trained values in heads and decoders.
    """

    name: str
    blocks: tuple[str, ...]
    parameters: int
    auxiliary_parameters: int


@dataclass(frozen=True)
class Team:
    """All that runtimes and the training loop know of a method.

    Attributes:
        learners: in the order of their calls.
        training: the program of a training step.
        evaluation: the program of an evaluation batch; learners that take part in its ``score`` phase hold scores.
        networks: each network that the run deploys, by name, as the learners whose bodies form it, in order.
    """

    learners: tuple[LearnerSummary, ...]
    training: Program
    evaluation: Program
    networks: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all learners."""
        return tuple(learner.name for learner in self.learners)


class Method(Protocol):
    """What each file of this room offers as ``METHOD``."""

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the learners and programs of a recipe."""

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build one learner where it will live."""
