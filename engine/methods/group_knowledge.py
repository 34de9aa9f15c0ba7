"""Parts of GKT and MKF: objective, sub-networks, store and mixing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from engine.backbones import SubNetworkSampler, require_droppable
from engine.data import Facts
from engine.knowledge.store import KnowledgeStore
from engine.learners import KnowledgeServer, Learner, UntrainedMember
from engine.learners.self_distillation.groups import GroupDistillation
from engine.learners.self_distillation.mixed_images import Mixer
from engine.learners.self_distillation.remote_store import RemoteStore
from engine.methods.team import LearnerSummary, Team
from engine.methods.whole_network import NAME, Training, WholeNetwork
from engine.objectives import Classification, KnowledgeMimicry, Objective
from engine.program import BATCH, SOURCE, Call, Message, Program
from engine.recipes import MKF, GroupKnowledge, Recipe

_TOLD = ("predictions", "prediction_weights", "prediction_rows")


def _settings(recipe: Recipe) -> GroupKnowledge:
    assert isinstance(recipe.method, GroupKnowledge)
    return recipe.method


def _sampler(recipe: Recipe, network: nn.Sequential) -> SubNetworkSampler:
    method = _settings(recipe)
    # One group is the full network, which any backbone has.
    stages = require_droppable(network, recipe.backbone.name) if method.num_groups > 1 else ()
    return SubNetworkSampler(
        stages,
        method.sampling,
        decay=method.decay,
        last_survival=method.last_survival,
        strict=method.strict_child,
    )


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    """Return the loss of a sub-network.

    Raises:
        RecipeError: the backbone has no sub-networks.
    """
    method = _settings(recipe)
    _sampler(recipe, network)
    terms = {Classification.name: Classification(), KnowledgeMimicry.name: KnowledgeMimicry(method.temperature)}
    weight = method.distillation_weight if method.num_groups > 1 else 0.0
    return Objective(terms, {Classification.name: 1.0, KnowledgeMimicry.name: weight})


def _self_distillation(training: Training) -> GroupDistillation:
    method, recipe, facts = _settings(training.recipe), training.recipe, training.facts
    mixer = None
    if isinstance(method, MKF):
        mixer = Mixer(
            training.role,
            "compound",
            method.mixing_probability,
            method.mixup_alpha,
            method.cutmix_alpha,
            round(method.warmup_fraction * recipe.epochs),
            method.mixing_partners == "second_batch",
        )
    store: KnowledgeStore | RemoteStore | None = None
    groups = _remembered_groups(recipe)
    if groups and method.store_learners:
        store = RemoteStore(facts.training_positions, groups, _entries(recipe), facts.num_classes)
    elif groups:
        store = _store(recipe, facts, facts.training_positions)
    return GroupDistillation(
        training.role,
        _sampler(recipe, training.network),
        method.num_groups,
        method.every_group,
        store,
        training.steps_per_epoch,
        mixer,
        method.fraction if isinstance(method, MKF) else "keep",
        _measure_every(recipe),
    )


def _measure_every(recipe: Recipe) -> int:
    return recipe.method.measure_fraction_every if isinstance(recipe.method, MKF) else 0


def _remembered_groups(recipe: Recipe) -> int:
    """Return the groups that are remembered: the smallest only so that its fractions can be measured."""
    method, measures = _settings(recipe), _measure_every(recipe) > 0
    return (method.num_groups if measures else method.num_groups - 1) if method.distillation_weight or measures else 0


def _entries(recipe: Recipe) -> int:
    """Return the most predictions that a step remembers: a mixed one two for each image."""
    return recipe.data.batch_size * (2 if isinstance(recipe.method, MKF) else 1)


def _store(recipe: Recipe, facts: Facts, images: int) -> KnowledgeStore:
    method = _settings(recipe)
    folder = Path(method.knowledge_folder) if method.knowledge_folder is not None else None
    groups, weight = _remembered_groups(recipe), method.averaging_weight
    return KnowledgeStore(images, facts.num_classes, groups, weight, top_k=method.top_k, folder=folder)


class GroupKnowledgeMethod(WholeNetwork):
    """GKT and MKF, whose knowledge other members of the team may keep.

    store0 recall(batch) -> knowledge0
    network forward(batch)
    network update(knowledge0) -> predictions, their weights and rows
    store0 remember(predictions, their weights and rows)
    """

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the network's learner, those that keep the knowledge, and their programs."""
        team, servers = super().team(recipe, facts), _servers(recipe)
        if not servers:
            return team
        (program,), entries, classes = team.training, _entries(recipe), facts.num_classes
        (rows, *_), _ = program.messages[BATCH].parts[0]
        recalled = {name: f"knowledge{part}" for part, name in enumerate(servers)}
        groups = _remembered_groups(recipe)
        messages = {name: Message(name, (((groups, rows, classes), "float32"),)) for name in recalled.values()}
        shapes = (((entries, classes), "float32"), ((entries,), "float32"), ((entries,), "int64"))
        messages |= {name: Message(name, (part,)) for name, part in zip(_TOLD, shapes, strict=True)}
        calls = (
            Call(SOURCE, "next", (), (BATCH,)),
            *(Call(name, "recall", (BATCH,), (message,)) for name, message in recalled.items()),
            Call(NAME, "forward", (BATCH,)),
            Call(NAME, "update", tuple(recalled.values()), _TOLD),
            *(Call(name, "remember", _TOLD) for name in servers),
        )
        summaries = [
            LearnerSummary(name, (f"knowledge_{part}_of_{len(servers)}",), 0, 0) for part, name in enumerate(servers)
        ]
        training = Program(calls, {**program.messages, **messages}, program.name)
        return dataclasses.replace(team, learners=(*team.learners, *summaries), training=(training,))

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner | UntrainedMember:
        """Build the network's learner, or one that keeps a part of the knowledge."""
        servers = _servers(recipe)
        if name not in servers:
            return super().build_learner(recipe, facts, steps_per_epoch, name, device)
        images = facts.training_positions
        store = _store(recipe, facts, -(-images // len(servers)))
        return KnowledgeServer(name, store, images, servers.index(name), len(servers), device)


def _servers(recipe: Recipe) -> list[str]:
    count = _settings(recipe).store_learners if _remembered_groups(recipe) else 0
    return [f"store{part}" for part in range(count)]


METHOD = GroupKnowledgeMethod(_objective, _self_distillation)
