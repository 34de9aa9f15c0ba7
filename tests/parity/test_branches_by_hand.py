"""Trainings with branches against loops written by hand, which use none of the engine's training code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine import backbones
from engine.data import open_source
from engine.recipes import DHM, DSL, DSN, SGD, Augmentation, Backbone, Constant, Recipe
from engine.streams import seeded

SEED, BATCH, CLASSES, IMAGE = 3, 24, 10, (1, 8, 8)
RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4
STREAM = "segment0"

TinyRecipe = Callable[..., Recipe]


@pytest.fixture
def small(tiny_recipe: TinyRecipe) -> TinyRecipe:
    """A function: the method, and the recipe of three steps, one in an epoch."""

    def recipe(method: Any) -> Recipe:
        return tiny_recipe(
            method=method,
            epochs=3,
            seed=SEED,
            backbone=Backbone(name="resnet8", widths=(8, 12, 16), shortcut="pooled_identity"),
            optimizer=SGD(learning_rate=RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY),
            schedule=Constant(),
            data={"train_limit": BATCH, "batch_size": BATCH, "augmentation": Augmentation()},
        )

    return recipe


def _heads(recipe: Recipe, network: nn.Sequential, count: int) -> dict[str, nn.Module]:
    """Return branches by the block that they leave from."""
    found = {}
    for plan in backbones.branch_plans(recipe.backbone.name, network, IMAGE, count):
        with seeded(SEED, STREAM, f"branch {plan.name}"):
            found[plan.fork] = backbones.build_branch(plan, recipe.backbone.name, network, CLASSES, IMAGE).train()
    return found


def _linear(network: nn.Sequential) -> dict[str, nn.Module]:
    """Return pooled linear classifiers after the stages but the last."""
    found: dict[str, nn.Module] = {}
    for fork, channels in (("layer1_0", 8), ("layer2_0", 12)):
        with seeded(SEED, STREAM, f"branch after_{fork}"):
            found[fork] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    return found


def _mimicry(logits: list[Tensor], temperature: float) -> Tensor:
    """Return the sum over all ordered pairs of T^2 KL(teacher || student)."""
    total = torch.zeros(())
    for place, student in enumerate(logits):
        for other, teacher in enumerate(logits):
            if other != place:
                target = F.softmax(teacher.detach() / temperature, dim=1)
                log_student = F.log_softmax(student / temperature, dim=1)
                total = total + temperature**2 * F.kl_div(log_student, target, reduction="batchmean")
    return total


def _assert_trained(
    recipe: Recipe,
    folder: Path,
    heads_of: Callable[[nn.Sequential], dict[str, nn.Module]],
    loss_of: Callable[[list[Tensor], Tensor, int], Tensor],
) -> None:
    """Train by hand and with the engine, and compare all weights of the network."""
    network = backbones.build(recipe.backbone, CLASSES, IMAGE, SEED).train()
    heads = heads_of(network)
    parameters = [*network.parameters(), *(weights for head in heads.values() for weights in head.parameters())]
    optimizer = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    source = open_source(recipe.data, SEED)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.facts.mean, source.facts.std))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in range(recipe.epochs):
        batch = source.batch(epoch, 0)
        features = (torch.from_numpy(batch.images).float() / 255 - mean) / std
        branched = {}
        for name, block in network.named_children():
            features = block(features)
            if name in heads:
                branched[name] = heads[name](features)
        logits = [features, *(branched[fork] for fork in heads)]
        loss_of(logits, torch.from_numpy(batch.labels), epoch).backward()
        optimizer.step()
        optimizer.zero_grad()
    source.close()
    found = engine.load(engine.train(recipe, engine.Plan(executor="process"), folder).run_dir).network().state_dict()
    assert found.keys() == network.state_dict().keys()
    moved = 0.0
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
        moved = max(moved, float((value - start[name]).abs().max())) if value.is_floating_point() else moved
    # What the comparison allows is far less than what training changes.
    assert moved > 1e-2


@pytest.mark.parametrize("count", [1, 2])
def test_rich_branches_with_label_losses(count: int, small: TinyRecipe, tmp_path: Path) -> None:
    recipe = small(DSL(num_branches=count, label_weight=0.7))

    def loss(logits: list[Tensor], labels: Tensor, epoch: int) -> Tensor:
        return F.cross_entropy(logits[0], labels) + 0.7 * sum(F.cross_entropy(each, labels) for each in logits[1:])

    _assert_trained(recipe, tmp_path / "run", lambda network: _heads(recipe, network, count), loss)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.4, 3.0)])
def test_all_heads_mimic_one_another(
    weight: float, temperature: float, apart: bool, small: TinyRecipe, tmp_path: Path
) -> None:
    recipe = small(DHM(weight=weight, temperature=temperature, branch_learners=apart))

    def loss(logits: list[Tensor], labels: Tensor, epoch: int) -> Tensor:
        return sum(F.cross_entropy(each, labels) for each in logits) + weight * _mimicry(logits, temperature)

    _assert_trained(recipe, tmp_path / "run", lambda network: _heads(recipe, network, 2), loss)


def test_companions_fade_and_stop_below_a_threshold(small: TinyRecipe, tmp_path: Path) -> None:
    recipe = small(DSN(threshold=2.0))
    kept = []

    def loss(logits: list[Tensor], labels: Tensor, epoch: int) -> Tensor:
        losses = [F.cross_entropy(each, labels) for each in logits[1:]]
        kept.extend(bool(each > 2.0) for each in losses)
        return F.cross_entropy(logits[0], labels) + (1 - epoch / 3) * sum(F.relu(each - 2.0) for each in losses)

    _assert_trained(recipe, tmp_path / "run", _linear, loss)
    assert any(kept)


def test_a_squared_hinge_teaches_network_and_companions(small: TinyRecipe, tmp_path: Path) -> None:
    recipe = small(DSN(loss="squared_hinge", decay="none", label_weight=0.1))

    def hinge(logits: Tensor, labels: Tensor) -> Tensor:
        signs = 2 * F.one_hot(labels, CLASSES) - 1
        return F.relu(1 - signs * logits).square().sum(dim=1).mean()

    def loss(logits: list[Tensor], labels: Tensor, epoch: int) -> Tensor:
        return hinge(logits[0], labels) + 0.1 * sum(hinge(each, labels) for each in logits[1:])

    _assert_trained(recipe, tmp_path / "run", _linear, loss)
