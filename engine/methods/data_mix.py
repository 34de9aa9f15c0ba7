"""Mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), or either in turn.

    x = lambda x_1 + (1 - lambda) x_2, lambda ~ Beta(alpha, alpha)       (or an area of x_2 in x_1: CutMix)
    L = lambda CE(z, y_1) + (1 - lambda) CE(z, y_2)

Each image of a batch is mixed with another one of the same batch.
"""

from __future__ import annotations

from torch import nn

from engine.data import Facts
from engine.learners.self_distillation.mixed_images import DataMix, Mixer
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Objective
from engine.recipes import DataMix as DataMixSettings
from engine.recipes import Recipe


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    return Objective({Classification.name: Classification()}, {Classification.name: 1.0})


def _self_distillation(training: Training) -> DataMix:
    method = training.recipe.method
    assert isinstance(method, DataMixSettings)
    mixer = Mixer(
        training.role,
        method.style,
        method.mixing_probability,
        method.mixup_alpha,
        method.cutmix_alpha,
        round(method.warmup_fraction * training.recipe.epochs),
        second_batch=False,
    )
    return DataMix(mixer)


METHOD = WholeNetwork(_objective, _self_distillation)
