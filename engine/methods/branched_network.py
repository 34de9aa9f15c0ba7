"""A network with branches: one learner that holds them all, or the network and each branch on a device of its own.

Where each branch is a learner, features go out and their gradients come back within the step:

    network forward(batch) -> at_near_top, at_deep
    near_top forward(batch, at_near_top) -> near_top_predictions
    deep forward(batch, at_deep) -> deep_predictions
    network conclude -> network_predictions
    near_top update(network_predictions, deep_predictions) -> near_top_gradient
    deep update(network_predictions, near_top_predictions) -> deep_gradient
    network learn(near_top_predictions, deep_predictions)
    network update(near_top_gradient, deep_gradient)

Without mimicry nobody takes predictions, and none are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.learners import Learner, Output, Role, SideBranch, Trunk
from engine.methods.branches import branch_blocks, forks_of
from engine.methods.chain import Chain
from engine.methods.segments import build_network, evaluation_program, images_message, refuse_auxiliary_heads, summarise
from engine.methods.team import LearnerSummary, Network, Team
from engine.objectives import BranchMimicry, Classification, Objective, Term
from engine.partition import Segment, whole_network
from engine.program import BATCH, SOURCE, Call, Message, Program
from engine.recipes import DHM, Recipe, RichBranches

_NETWORK = "network"
# The stream of the only segment of an uncut network: the same numbers as in one learner.
_STREAM = "segment0"


def _no_local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    raise AssertionError("a network with branches is not cut")


def _weight(recipe: Recipe) -> float:
    return recipe.method.weight if isinstance(recipe.method, DHM) else 0.0


def _predictions(name: str) -> str:
    return f"{name}_predictions"


@dataclass(frozen=True)
class BranchedNetwork(Chain):
    """A method that trains an uncut network with branches."""

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return one learner, or one for the network and one for each branch, and their programs.

        Raises:
            RecipeError: the network cannot have such branches, or gradients cannot be handed on in this precision.
        """
        method = recipe.method
        if not (isinstance(method, RichBranches) and method.branch_learners):
            return super().team(recipe, facts)
        if recipe.numerics.precision == "float16":
            raise RecipeError(
                "method.branch_learners=true hands gradients on as they are, but each learner scales those of "
                "numerics.precision=float16 in its own way: set numerics.precision=bfloat16, or "
                "method.branch_learners=false"
            )
        refuse_auxiliary_heads(recipe, "method.branch_learners=true")
        network = build_network(recipe, facts, recipe.seed)
        segment = whole_network(recipe, facts, network)
        forks = forks_of(method, facts, network)
        summaries = [summarise(_NETWORK, segment, network, self._objective(recipe, _NETWORK, forks))]
        for branch in forks:
            with torch.device("meta"):
                blocks = branch_blocks(method, branch, recipe, facts, network, (recipe.seed, _STREAM))
            count = sum(parameter.numel() for parameter in blocks.parameters())
            # No part of the deployed network: all its weights are auxiliary.
            summaries.append(LearnerSummary(branch, tuple(name for name, _ in blocks.named_children()), 0, count))
        evaluation = evaluation_program(recipe, facts, _NETWORK)
        networks = {"network": Network(recipe.backbone, (_NETWORK,), facts.num_classes)}
        return Team(tuple(summaries), (self._training(recipe, facts, network, forks),), evaluation, networks)

    def _training(self, recipe: Recipe, facts: Facts, network: nn.Sequential, forks: Mapping[str, str]) -> Program:
        rows, dtype = recipe.data.batch_size, recipe.numerics.precision
        shapes = dict(zip(network._modules, backbones.feature_shapes(network, facts.image_shape), strict=True))
        heads = (_NETWORK, *forks)
        mimicry = _weight(recipe) > 0 and len(heads) > 1

        def heard(own: str) -> tuple[str, ...]:
            return tuple(_predictions(head) for head in heads if head != own and mimicry)

        def said(own: str) -> tuple[str, ...]:
            return (_predictions(own),) if mimicry else ()

        calls = [
            Call(SOURCE, "next", (), (BATCH,)),
            Call(_NETWORK, "forward", (BATCH,), tuple(f"at_{branch}" for branch in forks)),
            *(Call(branch, "forward", (BATCH, f"at_{branch}"), said(branch)) for branch in forks),
            Call(_NETWORK, "conclude", (), said(_NETWORK)),
            *(Call(branch, "update", heard(branch), (f"{branch}_gradient",)) for branch in forks),
            Call(_NETWORK, "learn", heard(_NETWORK)),
            Call(_NETWORK, "update", tuple(f"{branch}_gradient" for branch in forks)),
        ]
        messages = {BATCH: images_message(recipe, facts, rows)}
        for branch, fork in forks.items():
            for name in (f"at_{branch}", f"{branch}_gradient"):
                messages[name] = Message(name, (((rows, *shapes[fork]), dtype),))
        for head in heads if mimicry else ():
            messages[_predictions(head)] = Message(_predictions(head), (((rows, facts.num_classes), dtype),))
        return Program(tuple(calls), messages, "training")

    def _objective(self, recipe: Recipe, own: str, forks: Mapping[str, str]) -> Objective:
        method = recipe.method
        assert isinstance(method, RichBranches)
        final: dict[str, Term] = {Classification.name: Classification()}
        weights = {Classification.name: 1.0 if own == _NETWORK else method.label_weight}
        if isinstance(method, DHM) and method.weight:
            heads = ("main", *forks)
            mimicry = BranchMimicry(
                "main" if own == _NETWORK else own,
                heads,
                {head: _predictions(_NETWORK if head == "main" else head) for head in heads},
                origin=(recipe.seed, _STREAM),
                temperature=method.temperature,
                directions=method.directions,
                keep=method.keep,
            )
            final[mimicry.name], weights[mimicry.name] = mimicry, method.weight
        return Objective(final, weights)

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build the one learner, the network without its branches, or one branch; other weights are never made."""
        method = recipe.method
        if not (isinstance(method, RichBranches) and method.branch_learners):
            return super().build_learner(recipe, facts, steps_per_epoch, name, device)
        mimicry = _weight(recipe) > 0
        gives: tuple[Output, ...] = ("predictions",) if mimicry else ()
        is_network = name == _NETWORK
        with torch.device("cpu" if is_network else "meta"):
            network = build_network(recipe, facts, recipe.seed)
        forks = forks_of(method, facts, network)
        objective = self._objective(recipe, name, forks)
        if is_network:
            role = Role("network", recipe.seed, _STREAM, gives)
            return Trunk(tuple(forks.values()), name, role, network, objective, recipe, facts, steps_per_epoch, device)
        blocks = branch_blocks(method, name, recipe, facts, network, (recipe.seed, _STREAM))
        role = Role(name, recipe.seed, f"{_STREAM}_{name}", gives)
        return SideBranch(name, role, blocks, objective, recipe, facts, steps_per_epoch, device)


METHOD = BranchedNetwork(_no_local_objective)
"""What `dsn`, `dsl` and `dhm` share; what tells them apart is in their settings."""
