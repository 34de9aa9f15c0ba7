"""A team: what a method makes of a recipe, learners by name and the programs that they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from engine.data import Facts
from engine.learners import Learner, UntrainedMember
from engine.program import Program, ProgramError
from engine.recipes import Backbone, Recipe


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
class Network:
    """A network that a run deploys.

    Attributes:
        backbone: what it is.
        learners: those whose bodies form it, in order.
        outputs: values, or channels, that its last block gives for its task.
    """

    backbone: Backbone
    learners: tuple[str, ...]
    outputs: int


@dataclass(frozen=True)
class Team:
    """All that runtimes and the training loop know of a method.

    Attributes:
        learners: in the order of their calls.
        training: the programs that training steps run in turn: step t = 0, 1, ... runs number t modulo how many
            there are. Most methods have one; a team that only scores has none.
        evaluation: the program of an evaluation batch; learners that take part in its ``score`` phase hold scores.
        networks: each network that the run deploys, by name.
        recalibration: the program of a training batch from which batch-norm statistics are measured anew before an
            evaluation; None where training leaves behind those of the deployed network.
        recalibration_images: how many training images that takes.

    Raises:
        ProgramError: different programs have the same name.
    """

    learners: tuple[LearnerSummary, ...]
    training: tuple[Program, ...]
    evaluation: Program
    networks: Mapping[str, Network]
    recalibration: Program | None = None
    recalibration_images: int = 0

    def __post_init__(self) -> None:
        """Check that programs can be known by their names."""
        known = self.programs
        for program in (*self.training, self.evaluation, *self._recalibrations):
            if program != known[program.name]:
                raise ProgramError(f"two programs of a team have the name {program.name!r}")

    @property
    def _recalibrations(self) -> tuple[Program, ...]:
        return () if self.recalibration is None else (self.recalibration,)

    @property
    def programs(self) -> Mapping[str, Program]:
        """Each different program by its name, in an order that depends on the team alone."""
        return {program.name: program for program in (*self.training, self.evaluation, *self._recalibrations)}

    def program(self, step: int) -> Program:
        """Return the program of a training step, counted from 0 over the whole run."""
        return self.training[step % len(self.training)]

    @property
    def training_programs(self) -> tuple[tuple[Program, str], ...]:
        """Each different program of training, with the steps that run it in words."""
        cycle = len(self.training)
        if cycle == 1:
            return ((self.training[0], "every step"),)
        counts = Counter(program.name for program in self.training)
        return tuple((self.programs[name], f"{count:,} of {cycle:,} steps") for name, count in counts.items())

    @property
    def deployed_parameters(self) -> int:
        """Number of trained values in the bodies of all learners."""
        return sum(learner.parameters for learner in self.learners)

    @property
    def trained_parameters(self) -> int:
        """Number of trained values in bodies, heads and decoders of all learners."""
        return self.deployed_parameters + sum(learner.auxiliary_parameters for learner in self.learners)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all learners."""
        return tuple(learner.name for learner in self.learners)


@runtime_checkable
class Taught(Protocol):
    """What a method offers besides whose learners learn from networks that lie in files, and that no run deploys."""

    def team_alone(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the team without those networks, which need not be there; it scores, and has no training program."""


@runtime_checkable
class Method(Protocol):
    """What the file of a method offers as ``METHOD``, be it of this room or of the user's own."""

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the learners and programs of a recipe."""

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner | UntrainedMember:
        """Build one learner where it will live."""
