"""Progressive self-knowledge distillation (PS-KD, Kim et al., ICCV 2021): past predictions soften the labels.

    L = CE(z, (1 - a_e) y + a_e p), a_e = alpha_T (e + 1) / E

p is what the network said of the image in the epoch before, in training and augmented differently. What is minimised is
(1 - a_e) CE(z, y) + a_e KL(p || softmax(z)), whose gradient is that of L. Losses are recorded with the factors of their
epoch: 1 - a_e and (e + 1) / E.
"""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.knowledge.store import KnowledgeStore
from engine.learners.self_distillation.history import LastVisit
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, KnowledgeMimicry, Objective
from engine.recipes import PSKD, Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, PSKD)
    terms = {Classification.name: Classification(), KnowledgeMimicry.name: KnowledgeMimicry()}
    return Objective(terms, {Classification.name: 1.0, KnowledgeMimicry.name: method.last_share})


def _self_distillation(training: Training) -> LastVisit | None:
    recipe, facts, method = training.recipe, training.facts, training.recipe.method
    assert isinstance(method, PSKD)
    if not method.last_share:
        return None
    store = KnowledgeStore(facts.training_positions, facts.num_classes, groups=1, averaging_weight=1.0)
    return LastVisit(store, method.last_share, recipe.epochs)


METHOD = WholeNetwork(_objective, _self_distillation)
