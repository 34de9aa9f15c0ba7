"""A network cut into K segments, each with a local loss: what end-to-end, greedy, DGL, PredSim and InfoPro share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.learners import Learner, Role
from engine.methods.branches import branch_terms, classifier_term
from engine.methods.segments import (
    build_network,
    evaluation_features_message,
    evaluation_images_message,
    features_message,
    images_message,
    summarise,
)
from engine.methods.tasks import with_further_terms
from engine.methods.team import Network, Team
from engine.objectives import Objective, Term
from engine.partition import Origin, Segment, segments_of
from engine.program import BATCH, SOURCE, Call, Program
from engine.recipes import Recipe
from engine.streams import seeded
from engine.tasks import task_of

# Of each auxiliary classifier that a backbone brings along, as GoogLeNet's in the released code of mutual learning.
_AUXILIARY_CLASSIFIER_WEIGHT = 0.4

LocalObjective = Callable[[Recipe, Facts, Segment], Objective]


def _programs(recipe: Recipe, facts: Facts, segments: tuple[Segment, ...]) -> tuple[Program, Program]:
    """Return the training and the evaluation program of a chain.

    Each segment takes the features of the one before, gives its own before it updates, and never waits for the
    next: nothing here makes a step wait for another.
    """
    training, evaluation = [Call(SOURCE, "next", (), (BATCH,))], [Call(SOURCE, "next", (), (BATCH,))]
    training_messages = {BATCH: images_message(recipe, facts, recipe.data.batch_size)}
    evaluation_messages = {BATCH: evaluation_images_message(recipe, facts)}
    takes: tuple[str, ...] = (BATCH,)
    for segment in segments:
        gives = () if segment.is_last else (f"features{segment.index}",)
        training.append(Call(segment.name, "forward", takes, gives))
        training.append(Call(segment.name, "update"))
        evaluation.append(Call(segment.name, "score" if segment.is_last else "infer", takes, gives))
        for name in gives:
            training_messages[name] = features_message(recipe, name, segment, recipe.data.batch_size)
            evaluation_messages[name] = evaluation_features_message(recipe, name, segment)
        takes = (BATCH, *gives)
    return (
        Program(tuple(training), training_messages, "training"),
        Program(tuple(evaluation), evaluation_messages, "evaluation"),
    )


@dataclass(frozen=True)
class Chain:
    """A method that trains a chain of segments.

    Attributes:
        local_objective: makes the objective of a segment that is not the last; the last one's is always the
            task's own loss on the network's output, weight 1.
    """

    local_objective: LocalObjective

    def objective(
        self, recipe: Recipe, facts: Facts, segment: Segment, network: nn.Sequential, origin: Origin
    ) -> Objective:
        """Return the objective of a segment, with its branches and the classifiers that the backbone brings along.

        Args:
            recipe: of the network, or of the peer.
            facts: what is known of the data.
            segment: whose learner has the objective.
            network: the whole backbone.
            origin: seed and stream of the learner's random numbers.

        Raises:
            RecipeError: a loss needs the labels of all images, and not all have one, or there can be no such branches.
        """
        if segment.is_last:
            final = classifier_term(recipe, facts)
            objective = Objective({final.name: final}, {final.name: 1.0})
        else:
            block = list(network._modules)[segment.stop - 1]
            flat = isinstance(backbones.feature_layout(segment.features), backbones.Vectors)
            greedy = "method.kind=greedy, whose head takes vectors, or " if flat else ""
            there, otherwise = "cut after a block whose features it takes", f"choose {greedy}method.kind=end_to_end"
            with backbones.naming_block(block, network, facts.image_shape, there, otherwise):
                objective = self.local_objective(recipe, facts, segment)
        needs_all = [name for name in ("contrastive", "similarity") if name in objective.weights]
        if needs_all and facts.labelled_images < facts.sizes["train"]:
            raise RecipeError(
                f"the {needs_all[0]} loss compares the labels of all images, but only {facts.labelled_images:,} of "
                f"{facts.sizes['train']:,} have one: set data.unlabelled=drop, or choose another method or head"
            )
        inside = list(network._modules)[segment.start : segment.stop]
        if not inside:
            return objective
        task = task_of(recipe, facts)
        heads = backbones.auxiliary_heads(recipe.backbone, network, task.outputs, facts.image_shape)
        terms: Mapping[str, Term] = {
            f"cross_entropy_after_{block}": task.hooked_term(block, head)
            for block, head in heads.items()
            if block in inside
        }
        objective = objective.plus(terms, dict.fromkeys(terms, _AUXILIARY_CLASSIFIER_WEIGHT))
        branches = branch_terms(recipe, facts, segment, network, origin)
        return objective.plus(branches, dict.fromkeys(branches, 1.0))

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the segments as learners, and their programs."""
        network = build_network(recipe, facts, recipe.seed)
        segments = segments_of(recipe, facts, network, self.objective)
        summaries = []
        for segment in segments:
            with torch.device("meta"):
                objective = self.objective(recipe, facts, segment, network, (recipe.seed, segment.name))
                objective = with_further_terms(objective, recipe, facts, segment)
            summaries.append(summarise(segment.name, segment, network, objective))
        training, evaluation = _programs(recipe, facts, segments)
        names = tuple(segment.name for segment in segments)
        networks = {"network": Network(recipe.backbone, names, task_of(recipe, facts).outputs)}
        return Team(tuple(summaries), (training,), evaluation, networks)

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build the learner of one segment; the rest of the network is dropped at once."""
        network = build_network(recipe, facts, recipe.seed)
        segment = next(s for s in segments_of(recipe, facts, network, self.objective) if s.name == name)
        body = network[segment.start : segment.stop]
        with seeded(recipe.seed, segment.name, "auxiliary"):
            objective = self.objective(recipe, facts, segment, network, (recipe.seed, segment.name))
            objective = with_further_terms(objective, recipe, facts, segment)
        role = Role("network", recipe.seed, segment.name, () if segment.is_last else ("features",))
        return Learner(name, role, body, objective, recipe, facts, steps_per_epoch, device)
