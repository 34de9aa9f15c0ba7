"""Stimulative training (Ye et al., NeurIPS 2022; ST++, arXiv 2305.02507): the full network teaches its sub-networks.

    L = CE(z, y) + c sum_s T^2 KL(softmax(z / T) || softmax(z_s / T))

In each step the full network learns from the labels, then S sub-networks learn from its predictions of the same images,
one after another; their gradients add up to one optimizer step.
"""

from __future__ import annotations

from torch import nn

from engine.backbones import SubNetworkSampler, require_droppable
from engine.data import Facts
from engine.learners.self_distillation.passes import FIRST
from engine.learners.self_distillation.subnetworks import Stimulation
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Mimicry, Objective
from engine.recipes import ST, Recipe


def _sampler(recipe: Recipe, network: nn.Sequential) -> SubNetworkSampler:
    method = recipe.method
    assert isinstance(method, ST)
    return SubNetworkSampler(
        require_droppable(network, recipe.backbone.name),
        method.sampling,
        decay=method.decay,
        last_survival=method.last_survival,
        choices=method.stage_choices,
    )


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, ST)
    _sampler(recipe, network)
    terms = {Classification.name: Classification(), Mimicry.name: Mimicry((FIRST,), temperature=method.temperature)}
    return Objective(terms, {Classification.name: 1.0, Mimicry.name: method.weight})


def _self_distillation(training: Training) -> Stimulation:
    method = training.recipe.method
    assert isinstance(method, ST)
    count = method.num_subnetworks if method.weight else 0
    return Stimulation(
        training.role, _sampler(training.recipe, training.network), count, Classification.name, Mimicry.name
    )


METHOD = WholeNetwork(_objective, _self_distillation)
