"""Self-distillation from the last mini-batch (DLB, Shen et al., CVPR 2022): agree with what was said one step ago.

    L_t = CE(z_t(x'_t), z_t(x''_{t-1}); y) + alpha T^2 KL(softmax(z_{t-1}(x'_{t-1}) / T) || softmax(z_t(x''_{t-1}) / T))

x' and x'' are two augmentations of the images of a batch; cross-entropy is one mean over the images of both batches.
"""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.learners.self_distillation.last_batch import PREVIOUS, LastBatch
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Mimicry, Objective
from engine.recipes import DLB, Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, DLB)
    mimicry = Mimicry((PREVIOUS,), temperature=method.temperature)
    terms = {Classification.name: Classification(), Mimicry.name: mimicry}
    return Objective(terms, {Classification.name: 1.0, Mimicry.name: method.weight})


def _self_distillation(training: Training) -> LastBatch:
    return LastBatch()


METHOD = WholeNetwork(_objective, _self_distillation)
