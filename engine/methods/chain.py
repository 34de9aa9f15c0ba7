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
from engine.methods.team import LearnerSummary, Network, Team
from engine.objectives import Classification, Objective, TappedClassification, Term
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Recipe, Segmented
from engine.streams import seeded

# Of each auxiliary classifier that a backbone brings along, as GoogLeNet's in the released code of mutual learning.
_AUXILIARY_CLASSIFIER_WEIGHT = 0.4


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks [start, stop) of a backbone.

    Attributes:
        index: j = 0..K-1.
        count: K.
        start: first block.
        stop: block after the last.
        features: shape of its output without the batch axis: (C, H, W), or (classes,) for the last.
        final_channels: channels of the last features before the classifier.
    """

    index: int
    count: int
    start: int
    stop: int
    features: tuple[int, ...]
    final_channels: int

    @property
    def name(self) -> str:
        """Name of the learner that trains it, and of its random stream."""
        return f"segment{self.index}"

    @property
    def is_last(self) -> bool:
        """Whether it ends with the classifier."""
        return self.index == self.count - 1


LocalObjective = Callable[[Recipe, Facts, Segment], Objective]


def build_network(recipe: Recipe, facts: Facts, seed: int, peer: int = 0) -> nn.Sequential:
    """Return the whole backbone of a recipe with the initial weights of a seed and a place in a cohort."""
    return backbones.build(recipe.backbone, facts.num_classes, facts.image_shape, seed, peer)


def segments_of(recipe: Recipe, facts: Facts, network: nn.Sequential) -> tuple[Segment, ...]:
    """Return the segments that a recipe cuts a network into; one if its method does not cut.

    Raises:
        RecipeError: there are fewer blocks than segments, or no such published cuts.
    """
    method = recipe.method
    count, rule = (method.num_segments, method.cuts) if isinstance(method, Segmented) else (1, "balanced")
    ranges = backbones.cut(network, count, rule, recipe.backbone.name, facts.image_shape)
    shapes = backbones.feature_shapes(network, facts.image_shape)
    return tuple(
        Segment(index, len(ranges), start, stop, shapes[stop - 1], shapes[-2][0])
        for index, (start, stop) in enumerate(ranges)
    )


def summarise(name: str, segment: Segment, network: nn.Sequential, objective: Objective) -> LearnerSummary:
    """Return what the learner of a segment will hold."""
    names = [block for block, _ in network.named_children()]
    body = network[segment.start : segment.stop]
    return LearnerSummary(name, tuple(names[segment.start : segment.stop]), _trained(body), _trained(objective))


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def features_message(recipe: Recipe, name: str, segment: Segment, batch_size: int) -> Message:
    """Return the message with the features of a segment."""
    return Message(name, (((batch_size, *segment.features), recipe.numerics.precision),))


def _programs(recipe: Recipe, facts: Facts, segments: tuple[Segment, ...]) -> tuple[Program, Program]:
    """Return the training and the evaluation program of a chain.

    Each segment takes the features of the one before, gives its own before it updates, and never waits for the
    next: nothing here makes a step wait for another.
    """
    training, evaluation = [Call(SOURCE, "next", (), (BATCH,))], [Call(SOURCE, "next", (), (BATCH,))]
    training_messages = {BATCH: batch_message(recipe.data.batch_size, facts.image_shape)}
    evaluation_messages = {BATCH: batch_message(recipe.data.evaluation_batch_size, facts.image_shape)}
    takes: tuple[str, ...] = (BATCH,)
    for segment in segments:
        gives = () if segment.is_last else (f"features{segment.index}",)
        training.append(Call(segment.name, "forward", takes, gives))
        training.append(Call(segment.name, "update"))
        evaluation.append(Call(segment.name, "score" if segment.is_last else "infer", takes, gives))
        for name in gives:
            training_messages[name] = features_message(recipe, name, segment, recipe.data.batch_size)
            evaluation_messages[name] = features_message(recipe, name, segment, recipe.data.evaluation_batch_size)
        takes = (BATCH, *gives)
    return Program(tuple(training), training_messages), Program(tuple(evaluation), evaluation_messages)


@dataclass(frozen=True)
class Chain:
    """A method that trains a chain of segments.

    Attributes:
        local_objective: makes the objective of a segment that is not the last; the last one's is always plain
            cross-entropy on the network's own classifier, weight 1.
    """

    local_objective: LocalObjective

    def objective(self, recipe: Recipe, facts: Facts, segment: Segment, network: nn.Sequential) -> Objective:
        """Return the objective of a segment, with the auxiliary classifiers that the backbone itself brings along.

        Raises:
            RecipeError: a loss needs the labels of all images, and not all have one.
        """
        if segment.is_last:
            objective = Objective({"cross_entropy": Classification()}, {"cross_entropy": 1.0})
        else:
            objective = self.local_objective(recipe, facts, segment)
        needs_all = [name for name in ("contrastive", "similarity") if name in objective.weights]
        if needs_all and facts.labelled_images < facts.sizes["train"]:
            raise RecipeError(
                f"the {needs_all[0]} loss compares the labels of all images, but only {facts.labelled_images:,} of "
                f"{facts.sizes['train']:,} have one: set data.unlabelled=drop, or choose another method or head"
            )
        inside = [name for name, _ in network.named_children()][segment.start : segment.stop]
        heads = backbones.auxiliary_heads(recipe.backbone, network, facts.num_classes, facts.image_shape)
        terms: Mapping[str, Term] = {
            f"cross_entropy_after_{block}": TappedClassification(block, head)
            for block, head in heads.items()
            if block in inside
        }
        return objective.plus(terms, dict.fromkeys(terms, _AUXILIARY_CLASSIFIER_WEIGHT))

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the segments as learners, and their programs."""
        network = build_network(recipe, facts, recipe.seed)
        segments = segments_of(recipe, facts, network)
        summaries = []
        for segment in segments:
            with torch.device("meta"):
                objective = self.objective(recipe, facts, segment, network)
            summaries.append(summarise(segment.name, segment, network, objective))
        training, evaluation = _programs(recipe, facts, segments)
        networks = {"network": Network(recipe.backbone, tuple(segment.name for segment in segments))}
        return Team(tuple(summaries), (training,), evaluation, networks)

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build the learner of one segment; the rest of the network is dropped at once."""
        network = build_network(recipe, facts, recipe.seed)
        segment = next(s for s in segments_of(recipe, facts, network) if s.name == name)
        body = network[segment.start : segment.stop]
        with seeded(recipe.seed, segment.name, "auxiliary"):
            objective = self.objective(recipe, facts, segment, network)
        role = Role("network", recipe.seed, segment.name, () if segment.is_last else ("features",))
        return Learner(name, role, body, objective, recipe, facts, steps_per_epoch, device)
