"""One learner that owns the whole network and teaches it itself: what sub-network training and its rivals share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from engine.data import Facts
from engine.learners import Learner, Role, UntrainedMember
from engine.learners.self_distillation.passes import SelfDistillation
from engine.methods.segments import (
    build_network,
    evaluation_program,
    images_message,
    recalibration_program,
    refuse_auxiliary_heads,
    summarise,
)
from engine.methods.team import Network, Team
from engine.objectives import Objective
from engine.partition import whole_network
from engine.program import BATCH, SOURCE, Call, Program
from engine.recipes import Recipe
from engine.streams import seeded
from engine.tasks import task_of

NAME = "network"


@dataclass(frozen=True)
class Training:
    """What a method needs to know of the run.

    Attributes:
        recipe: what is trained.
        facts: what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        role: of the learner.
        network: the backbone with its initial weights.
    """

    recipe: Recipe
    facts: Facts
    steps_per_epoch: int
    role: Role
    network: nn.Sequential


@dataclass(frozen=True)
class WholeNetwork:
    """A method of one learner.

    Attributes:
        objective: makes the loss on the network's output, with its auxiliary networks; raises RecipeError if the recipe
            cannot be, also if that is because of the teaching.
        self_distillation: makes what decides what the network sees and remembers.
    """

    objective: Callable[[Recipe, Facts, nn.Sequential], Objective]
    self_distillation: Callable[[Training], SelfDistillation | None]

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the one learner, and its programs."""
        refuse_auxiliary_heads(recipe, f"method.kind={recipe.method.kind}")
        network = build_network(recipe, facts, recipe.seed)
        segment = whole_network(recipe, facts, network)
        with torch.device("meta"):
            objective = self.objective(recipe, facts, network)
        paired_images = 1 if recipe.method.paired_images == "none" else 2
        training = Program(
            (Call(SOURCE, "next", (), (BATCH,)), Call(NAME, "forward", (BATCH,)), Call(NAME, "update")),
            {BATCH: images_message(recipe, facts, paired_images * recipe.data.batch_size)},
            "training",
        )
        images = recipe.method.recalibration_images
        return Team(
            (summarise(NAME, segment, network, objective),),
            (training,),
            evaluation_program(recipe, facts, NAME),
            {"network": Network(recipe.backbone, (NAME,), task_of(recipe, facts).outputs)},
            recalibration_program(recipe, facts, NAME) if images else None,
            images,
        )

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner | UntrainedMember:
        """Build the learner, whose network starts as it would if it were trained from labels alone."""
        network, role = build_network(recipe, facts, recipe.seed), _role(recipe)
        with seeded(role.seed, role.stream, "auxiliary"):
            objective = self.objective(recipe, facts, network)
        self_distillation = self.self_distillation(Training(recipe, facts, steps_per_epoch, role, network))
        return Learner(
            name, role, network, objective, recipe, facts, steps_per_epoch, device, self_distillation=self_distillation
        )


def _role(recipe: Recipe) -> Role:
    # The stream of the only segment of an uncut network: without any teaching it is end-to-end training, bit for bit.
    return Role("network", recipe.seed, "segment0")
