"""Are the recipes of sub-networks and group knowledge complete, on one budget, and those of the papers?"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine import backbones
from engine.learners.optimization import learning_rate_at
from engine.recipes import GroupKnowledge, Recipe, shipped_recipes

RECIPES = {name: make() for name, make in shipped_recipes().items() if not name.endswith("_tiny")}
SETS = ("cifar100", "tiny_imagenet", "imagenet")


def baseline_of(name: str) -> str | None:
    """Return the name of the baseline that a recipe is compared with."""
    found = (f"baseline_{data}_{name.rpartition(f'_{data}_')[2]}" for data in SETS if f"_{data}_" in name)
    return next((baseline for baseline in found if baseline in RECIPES), None)


# Cohorts and networks with branches have budgets of their own.
OTHERS = ("baseline_", "end_to_end_", "unbranched_", "dsn_", "dsl_", "dhm_")
PAIRS = {name: base for name in RECIPES if (base := baseline_of(name)) is not None and not name.startswith(OTHERS)}


def test_the_arms_are_complete() -> None:
    arms = "stochastic_depth st gkt mkf mkf_linear mkf_linear_clipped mkf_exact mkf_none data_mix label_smoothing"
    arms += " mixup cutmix one cs_kd ps_kd lwr dlb"
    for place in ("cifar100_resnet50", "tiny_imagenet_resnet34"):
        assert {f"{arm}_{place}" for arm in arms.split()} <= set(PAIRS)
    for network in ("resnet34", "mobilenet_v3_large", "wrn_28_10", "wrn_16_8"):
        assert {f"{arm}_cifar100_{network}" for arm in ("gkt", "mkf", "mkf_exact")} <= set(PAIRS)
    assert {"st_imagenet_resnet50", "gkt_imagenet_resnet50", "mkf_imagenet_resnet50"} <= set(PAIRS)
    for arm in ("stochastic_depth", "st", "gkt", "mkf", "one", "cs_kd", "ps_kd", "lwr", "dlb"):
        assert f"{arm}_digits" in RECIPES


@pytest.mark.parametrize("name", PAIRS)
def test_an_arm_differs_from_its_baseline_in_its_method_only(name: str) -> None:
    recipe, baseline = RECIPES[name], RECIPES[PAIRS[name]]
    assert recipe.method.kind != "end_to_end" and baseline.method.kind == "end_to_end"
    assert dataclasses.replace(recipe, name=baseline.name, method=baseline.method) == baseline


@pytest.mark.parametrize("name", [name for name in PAIRS if isinstance(RECIPES[name].method, GroupKnowledge)])
def test_group_knowledge_has_the_papers_settings(name: str) -> None:
    method = RECIPES[name].method
    weight = 0.5 if "_imagenet_" in name and "tiny" not in name else 2.0
    assert (method.num_groups, method.averaging_weight, method.distillation_weight) == (3, 0.5, weight)
    assert (method.sampling, method.every_group, method.temperature) == ("inherited", False, 1.0)
    if method.kind == "mkf":
        assert (method.warmup_fraction, method.mixing_probability) == (0.1, 0.5)


# Epochs, batch, learning rate, weight decay; learning rates after the first quarter and three quarters.
BUDGETS = {
    "baseline_cifar100_resnet50": (500, 64, 0.05, 3e-4, (0.0427, 0.0073)),
    "baseline_cifar100_wrn_28_10": (200, 128, 0.1, 3e-4, (0.0854, 0.0146)),
    "baseline_tiny_imagenet_resnet34": (500, 64, 0.1, 3e-4, (0.1, 0.001)),
    "baseline_tiny_imagenet_wrn_16_8": (200, 128, 0.2, 3e-4, (0.2, 0.002)),
    "baseline_imagenet_resnet50": (200, 512, 0.2, 1e-4, (0.1707, 0.0293)),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_the_budget_is_the_papers(name: str) -> None:
    recipe: Recipe = RECIPES[name]
    epochs, batch, rate, decay, later = BUDGETS[name]
    found = (recipe.epochs, recipe.data.batch_size, recipe.optimizer.learning_rate, recipe.optimizer.weight_decay)
    assert found == (epochs, batch, rate, decay)
    assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, True)
    quarter = [learning_rate_at(recipe, 10, epochs * part // 4, 0) for part in (1, 3)]
    assert quarter == pytest.approx(later, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("baseline_")])
def test_every_network_has_sub_networks(name: str) -> None:
    recipe = RECIPES[name]
    size = recipe.data.height_and_width or (32, 32)
    with torch.device("meta"):
        network = backbones.build(recipe.backbone, 10, (3, *size), seed=0)
    assert sum(map(len, backbones.require_droppable(network, recipe.backbone.name))) >= 3
