"""What GKT and MKF are made of: objective, sub-networks, store and mixing."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from engine.backbones import SubNetworkSampler, require_droppable
from engine.data import Facts
from engine.knowledge.store import KnowledgeStore
from engine.learners.teaching.groups import GroupTeaching
from engine.learners.teaching.mixed_images import Mixer
from engine.methods.whole_network import Training
from engine.objectives import Classification, KnowledgeMimicry, Objective
from engine.recipes import MKF, Fraction, Recipe


def _sampler(recipe: Recipe, network: nn.Sequential) -> SubNetworkSampler:
    method = recipe.method
    # One group is the full network, which any backbone has.
    stages = require_droppable(network, recipe.backbone.name) if method.num_groups > 1 else ()
    return SubNetworkSampler(
        stages,
        method.sampling,
        decay=method.decay,
        last_survival=method.last_survival,
        strict=method.strict_child,
    )


def group_objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    """Return the loss of a sub-network.

    Raises:
        RecipeError: the backbone has no sub-networks.
    """
    method = recipe.method
    _sampler(recipe, network)
    terms = {Classification.name: Classification(), KnowledgeMimicry.name: KnowledgeMimicry(method.temperature)}
    weight = method.distillation_weight if method.num_groups > 1 else 0.0
    return Objective(terms, {Classification.name: 1.0, KnowledgeMimicry.name: weight})


def group_teaching(training: Training) -> GroupTeaching:
    """Return what draws sub-networks, remembers and recalls.

    Raises:
        RecipeError: the store's settings do not fit the data, or its folder cannot be used.
    """
    method, recipe, facts = training.recipe.method, training.recipe, training.facts
    mixer, measure_every = None, 0
    fraction: Fraction = "keep"
    if isinstance(method, MKF):
        fraction, measure_every = method.fraction, method.measure_fraction_every
        mixer = Mixer(
            training.role,
            "compound",
            method.mixing_probability,
            method.mixup_alpha,
            method.cutmix_alpha,
            round(method.warmup_fraction * recipe.epochs),
            method.mixing_partners == "second_batch",
        )
    # The smallest group teaches nobody; it is remembered only so that its fractions can be measured.
    groups = method.num_groups if measure_every else method.num_groups - 1
    store = None
    if groups and (method.distillation_weight or measure_every):
        folder = Path(method.knowledge_folder) if method.knowledge_folder is not None else None
        store = KnowledgeStore(
            facts.training_positions,
            facts.num_classes,
            groups,
            method.averaging_weight,
            top_k=method.top_k,
            folder=folder,
        )
    return GroupTeaching(
        training.role,
        _sampler(recipe, training.network),
        method.num_groups,
        method.every_group,
        store,
        training.steps_per_epoch,
        mixer,
        fraction,
        measure_every,
    )
