"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382): residual blocks are left out at random in training.

Block l of the L that can be left out stays in a step with probability p_l = 1 - (l / L) (1 - p_L). What its branch
adds is then divided by p_l, as torchvision.ops.StochasticDepth does, so that the deployed network is the plain one; the
paper multiplies by p_l at test time instead, which is equal in expectation. Blocks that change the shape always stay.
"""

from __future__ import annotations

from torch import nn

from engine.backbones import SubNetworkSampler, require_droppable
from engine.data import Facts
from engine.learners.self_distillation.subnetworks import RandomDepth
from engine.methods.tasks import whole_objective
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Objective
from engine.recipes import Recipe, StochasticDepth


def _sampler(recipe: Recipe, network: nn.Sequential) -> SubNetworkSampler:
    method = recipe.method
    assert isinstance(method, StochasticDepth)
    stages = require_droppable(network, recipe.backbone.name)
    return SubNetworkSampler(stages, "independent", last_survival=method.last_survival)


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    _sampler(recipe, network)
    return whole_objective(recipe, facts)


def _self_distillation(training: Training) -> RandomDepth:
    return RandomDepth(training.role, _sampler(training.recipe, training.network))


METHOD = WholeNetwork(_objective, _self_distillation)
