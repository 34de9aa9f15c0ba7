"""Class-wise self-knowledge distillation (CS-KD, Yun et al., CVPR 2020): images of a class agree with one another.

    L = CE(z(x), y) + lambda T^2 KL(softmax(z(x') / T) || softmax(z(x) / T)), x' a random image of the class of x

x' may be x itself, and gets no gradient.
"""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.learners.self_distillation.class_wise import SAME_CLASS, SameClass
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Mimicry, Objective
from engine.recipes import CSKD, Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, CSKD)
    mimicry = Mimicry((SAME_CLASS,), temperature=method.temperature)
    terms = {Classification.name: Classification(), Mimicry.name: mimicry}
    return Objective(terms, {Classification.name: 1.0, Mimicry.name: method.weight})


def _self_distillation(training: Training) -> SameClass:
    method = training.recipe.method
    assert isinstance(method, CSKD)
    return SameClass(consults=method.weight > 0)


METHOD = WholeNetwork(_objective, _self_distillation)
