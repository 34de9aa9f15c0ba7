"""Are the shipped cohorts those of the paper, each with the controls that make its gain a gain?"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from engine.learners.optimization import learning_rate_at, make_optimizer
from engine.recipes import DML, Distillation, Peer, Recipe, shipped_recipes
from engine.streams import generator

RECIPES = {name: make() for name, make in shipped_recipes().items() if not name.endswith("_tiny")}
# The networks of the other papers on CIFAR-100 have budgets of their own.
CIFAR100 = {
    name: recipe
    for name, recipe in RECIPES.items()
    if recipe.data.name == "cifar100"
    and recipe.method.kind in ("dml", "distillation", "end_to_end")
    and not name.startswith(("baseline_", "unbranched_"))
}
# The six rows of the paper's Table 2.
PAIRS = {
    "resnet32_resnet32": ["resnet32", "resnet32"],
    "wrn_28_10_resnet32": ["wrn_28_10", "resnet32"],
    "mobilenet_resnet32": ["mobilenet_v1", "resnet32"],
    "mobilenet_mobilenet": ["mobilenet_v1", "mobilenet_v1"],
    "wrn_28_10_mobilenet": ["wrn_28_10", "mobilenet_v1"],
    "wrn_28_10_wrn_28_10": ["wrn_28_10", "wrn_28_10"],
}
COHORTS = PAIRS | {f"resnet32_k{size}": ["resnet32"] * size for size in (3, 4, 5)}


def backbones_of(recipe: Recipe) -> list[str]:
    return [(peer.backbone or recipe.backbone).name for peer in recipe.method.peers]


def of_a_larger_loss(recipe: Recipe, scale: float, name: str) -> Recipe:
    own = recipe.optimizer
    optimizer = dataclasses.replace(own, learning_rate=own.learning_rate * scale, weight_decay=own.weight_decay / scale)
    return dataclasses.replace(recipe, name=name, optimizer=optimizer)


@pytest.mark.parametrize(("title", "networks"), COHORTS.items())
def test_every_cohort_has_its_controls(title: str, networks: list[str]) -> None:
    dml, independent, scaled = (
        RECIPES[f"{arm}_cifar100_{title}"] for arm in ("dml", "independent", "independent_scaled")
    )
    assert [backbones_of(recipe) for recipe in (dml, independent, scaled)] == [networks] * 3
    assert dml.method == DML(peers=dml.method.peers)
    # Nothing but the weight, and then the size of the loss, tells the arms apart.
    alone = dataclasses.replace(dml.method, weight=0.0)
    assert dataclasses.replace(independent, name=dml.name) == dataclasses.replace(dml, method=alone)
    assert scaled == of_a_larger_loss(independent, 1 + dml.method.weight, scaled.name)


@pytest.mark.parametrize("percent", [10, 20, 40, 60, 80])
def test_every_labelled_fraction_has_the_arms_of_the_paper(percent: int) -> None:
    names = ("dml_all", "independent_all", "dml_labelled", "independent", "independent_scaled")
    arms = {name: RECIPES[f"{name}_cifar100_labelled{percent}"] for name in names}
    assert {recipe.data.labelled_fraction for recipe in arms.values()} == {percent / 100}
    assert {name: recipe.data.unlabelled for name, recipe in arms.items()} == dict.fromkeys(names, "drop") | {
        "dml_all": "use",
        "independent_all": "use",
    }
    assert {name: recipe.method.weight for name, recipe in arms.items()} == {
        "dml_all": 1.0,
        "dml_labelled": 1.0,
        "independent_all": 0.0,
        "independent": 0.0,
        "independent_scaled": 0.0,
    }


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize(
    ("arm", "changes"),
    [
        ("dml_sequential", {"schedule": "sequential"}),
        ("dml_e", {"target": "mean_probabilities"}),
        ("dml_e_logits", {"target": "mean_logits"}),
        ("dml_sum", {"reduction": "sum"}),
    ],
)
def test_a_variant_differs_in_one_thing(size: int, arm: str, changes: dict[str, str]) -> None:
    variant, plain = RECIPES[f"{arm}_cifar100_resnet32_k{size}"], RECIPES[f"dml_cifar100_resnet32_k{size}"]
    changed = dataclasses.replace(plain.method, **changes)
    assert dataclasses.replace(variant, name=plain.name) == dataclasses.replace(plain, method=changed)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_sum_over_peers_has_a_control_of_its_own(size: int) -> None:
    alone, scaled = (RECIPES[f"{arm}_cifar100_resnet32_k{size}"] for arm in ("independent", "independent_scaled_sum"))
    assert scaled == of_a_larger_loss(alone, size, scaled.name)


@pytest.mark.parametrize("scale", [2, 5])
def test_the_scaled_control_takes_the_steps_of_a_larger_loss(scale: int) -> None:
    """In double precision, so that nothing but rounding lies between them."""
    plain = RECIPES["independent_cifar100_resnet32_k5"]
    arm = "independent_scaled" if scale == 2 else "independent_scaled_sum"
    scaled = RECIPES[f"{arm}_cifar100_resnet32_k5"]

    def trained(recipe: Recipe, factor: float) -> Tensor:
        draws = generator("cohort recipes", "steps")
        weight = nn.Parameter(torch.randn(6, generator=draws, dtype=torch.float64))
        optimizer = make_optimizer(recipe.optimizer, [weight])
        for _ in range(4):
            weight.grad = factor * torch.randn(6, generator=draws, dtype=torch.float64)
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(trained(scaled, 1.0), trained(plain, scale), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("teacher", ["wrn_28_10", "mobilenet"])
def test_distillation_has_a_recipe_for_its_teachers(teacher: str) -> None:
    recipe = RECIPES["distillation_cifar100_resnet32"]
    assert (recipe.method, recipe.backbone.name) == (Distillation(), "resnet32")
    assert RECIPES[f"end_to_end_cifar100_{teacher}"].method.kind == "end_to_end"


@pytest.mark.parametrize("name", CIFAR100)
def test_the_budget_is_the_published_one(name: str) -> None:
    recipe = CIFAR100[name]
    scale = 2 if name.startswith("independent_scaled") else 1
    if name.startswith("independent_scaled_sum"):
        scale = len(recipe.method.peers)
    rates = [learning_rate_at(recipe, 782, epoch, 5) for epoch in (0, 59, 60, 119, 120, 179, 180, 199)]
    factors = [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert rates == pytest.approx([0.1 * scale * factor for factor in factors])
    assert (recipe.epochs, recipe.data.batch_size) == (200, 64)
    optimizer, changes = recipe.optimizer, recipe.data.augmentation
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, True, 5e-4 / scale)
    assert (changes.crop_padding, changes.padding_mode, changes.flip) == (4, "reflect", True)


def test_the_digits_arms_differ_in_one_thing() -> None:
    for inside in ("", "infopro_"):
        dml, independent = (RECIPES[f"{arm}_{inside}digits"] for arm in ("dml", "independent"))
        alone = dataclasses.replace(dml.method, weight=0.0)
        assert dataclasses.replace(independent, name=dml.name) == dataclasses.replace(dml, method=alone)
    scaled = RECIPES["independent_scaled_digits"]
    assert scaled == of_a_larger_loss(RECIPES["independent_digits"], 2, scaled.name)
    # Mimicry reaches the last segment alone, and the recipe's learning rate all.
    assert "independent_scaled_infopro_digits" not in RECIPES
    assert RECIPES["dml_infopro_digits"].method.peer_method.kind == "infopro"
    assert RECIPES["dml_infopro_digits"].method.peer_method.num_segments == 2


def test_who_weighs_mimicry_far_above_the_labels_is_told_so() -> None:
    assert RECIPES["dml_cifar100_resnet32_k5"].method.caution is None
    assert RECIPES["dml_sum_cifar100_resnet32_k4"].method.caution is None
    assert "4 times the weight" in RECIPES["dml_sum_cifar100_resnet32_k5"].method.caution
    assert "a learning rate 9 times as large" in str(DML(weight=8.0).caution)
    assert DML(weight=8.0, peers=(Peer(),)).caution is None
