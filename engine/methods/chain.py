"""A network cut into K segments, each with a local loss: what end-to-end, greedy, DGL, PredSim and InfoPro share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from engine import backbones
from engine.data import Facts
from engine.learners import Learner
from engine.methods.team import LearnerSummary, Team
from engine.objectives import Classification, Objective
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Recipe, Segmented
from engine.streams import seeded


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
        """Name of the learner that trains it."""
        return f"segment{self.index}"

    @property
    def is_last(self) -> bool:
        """Whether it ends with the classifier."""
        return self.index == self.count - 1


LocalObjective = Callable[[Recipe, Facts, Segment], Objective]


def build_network(recipe: Recipe, facts: Facts) -> nn.Sequential:
    """Return the whole backbone with the initial weights of the recipe's seed."""
    return backbones.build(recipe.backbone, facts.num_classes, facts.image_shape, recipe.seed)


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


def chain_programs(recipe: Recipe, facts: Facts, segments: tuple[Segment, ...]) -> tuple[Program, Program]:
    """Return the training and the evaluation program of a chain.

    Each segment takes the features of the one before, gives its own before it updates, and never waits for the
    next: nothing here makes a step wait for another.
    """
    dtype = recipe.numerics.precision
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
            training_messages[name] = Message(name, (((recipe.data.batch_size, *segment.features), dtype),))
            shape = (recipe.data.evaluation_batch_size, *segment.features)
            evaluation_messages[name] = Message(name, ((shape, dtype),))
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

    def _objective(self, recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
        if segment.is_last:
            return Objective({"cross_entropy": Classification()}, {"cross_entropy": 1.0})
        return self.local_objective(recipe, facts, segment)

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the segments as learners, and their programs."""
        network = build_network(recipe, facts)
        segments = segments_of(recipe, facts, network)
        names = [name for name, _ in network.named_children()]
        summaries = []
        for segment in segments:
            with torch.device("meta"):
                auxiliary = self._objective(recipe, facts, segment)
            body = network[segment.start : segment.stop]
            summaries.append(
                LearnerSummary(
                    segment.name, tuple(names[segment.start : segment.stop]), _trained(body), _trained(auxiliary)
                )
            )
        training, evaluation = chain_programs(recipe, facts, segments)
        return Team(tuple(summaries), training, evaluation, {"network": tuple(s.name for s in segments)})

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build the learner of one segment; the rest of the network is dropped at once."""
        network = build_network(recipe, facts)
        segment = next(s for s in segments_of(recipe, facts, network) if s.name == name)
        body = network[segment.start : segment.stop]
        with seeded(recipe.seed, segment.name, "auxiliary"):
            objective = self._objective(recipe, facts, segment)
        return Learner(name, body, objective, recipe, facts, steps_per_epoch, device)


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
