"""Learning with retrospection (LWR, Deng and Zhang, AAAI 2021): predictions of some epochs ago soften the labels.

    L = (g + (1 - c / H) (1 - g)) CE(z, y) + (c / H) (1 - g) T^2 KL(softmax(z_past / T) || softmax(z / T))

Epochs e count from 1, as in the authors' code: c is 0 as long as e <= k, then k floor(e / k), at most H. So c rises in
the last epoch of every interval of k epochs, and z_past, what the network said of the image in the last epoch of the
interval before, changes one epoch later. Losses are recorded with the factors of their epoch, that of the divergence
without 1 - g.
"""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.knowledge.store import KnowledgeStore
from engine.learners.self_distillation.history import Retrospection
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, KnowledgeMimicry, Objective
from engine.recipes import LWR, Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, LWR)
    terms = {Classification.name: Classification(), KnowledgeMimicry.name: KnowledgeMimicry(method.temperature)}
    return Objective(terms, {Classification.name: 1.0, KnowledgeMimicry.name: 1 - method.label_share})


def _self_distillation(training: Training) -> Retrospection | None:
    method, facts = training.recipe.method, training.facts
    assert isinstance(method, LWR)
    if method.label_share == 1:
        return None
    store = KnowledgeStore(
        facts.training_positions, facts.num_classes, groups=2, averaging_weight=1.0, content="logits"
    )
    return Retrospection(store, method.interval, method.label_share, method.horizon)


METHOD = WholeNetwork(_objective, _self_distillation)
