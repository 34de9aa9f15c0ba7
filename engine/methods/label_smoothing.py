"""Label smoothing (Szegedy et al. 2016, section 7): L = CE(z, (1 - epsilon) y + epsilon / classes)."""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Objective
from engine.recipes import LabelSmoothing, Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, LabelSmoothing)
    return Objective({Classification.name: Classification(method.smoothing)}, {Classification.name: 1.0})


def _self_distillation(training: Training) -> None:
    return None


METHOD = WholeNetwork(_objective, _self_distillation)
