"""Are the shipped networks with branches those of the released code, and do their arms differ in the method alone?"""

from __future__ import annotations

import dataclasses

import pytest

import engine
from engine.learners.optimization import learning_rate_at
from engine.recipes import DHM, DSL, DSN, Augmentation, EndToEnd, Recipe, recipe_identity, shipped_recipes

ARMS = ("unbranched", "dsn", "dsl", "dhm")
CIFAR100 = ("resnet32", "resnet110", "wrn_28_10", "densenet_bc_100_12")
IMAGENET = ("resnet18", "resnet50", "resnet101", "resnet152")
RECIPES = {
    name: make()
    for name, make in shipped_recipes().items()
    if name.startswith(tuple(f"{arm}_" for arm in (*ARMS, "dhm_sampled")))
}
ROWS = [("cifar100", network) for network in CIFAR100] + [("imagenet", network) for network in IMAGENET]


def _rates(recipe: Recipe, epochs: tuple[int, ...]) -> list[float]:
    return [learning_rate_at(recipe, 390, epoch, 5) for epoch in epochs]


@pytest.mark.parametrize(("data", "network"), ROWS)
def test_arms_differ_in_the_method_alone(data: str, network: str) -> None:
    arms = {arm: RECIPES[f"{arm}_{data}_{network}"] for arm in ARMS}
    assert {arm: recipe.method for arm, recipe in arms.items()} == {
        "unbranched": EndToEnd(),
        "dsn": DSN(),
        "dsl": DSL(),
        "dhm": DHM(),
    }
    same = {recipe_identity(dataclasses.replace(recipe, name="one", method=EndToEnd())) for recipe in arms.values()}
    assert len(same) == 1


@pytest.mark.parametrize(
    ("network", "batch_size", "epochs", "weight_decay", "rates"),
    [
        ("resnet32", 128, 164, 1e-4, {0: 0.1, 80: 0.1, 81: 0.01, 121: 0.01, 122: 0.001, 163: 0.001}),
        ("resnet110", 128, 164, 1e-4, {0: 0.1, 80: 0.1, 81: 0.01, 121: 0.01, 122: 0.001, 163: 0.001}),
        ("wrn_28_10", 128, 200, 5e-4, {59: 0.1, 60: 0.02, 119: 0.02, 120: 0.004, 160: 0.0008}),
        ("densenet_bc_100_12", 64, 300, 1e-4, {149: 0.1, 150: 0.01, 224: 0.01, 225: 0.001}),
    ],
)
def test_the_budget_on_cifar_100(
    network: str, batch_size: int, epochs: int, weight_decay: float, rates: dict[int, float]
) -> None:
    recipe = RECIPES[f"dhm_cifar100_{network}"]
    assert (recipe.data.batch_size, recipe.epochs, recipe.optimizer.weight_decay) == (batch_size, epochs, weight_decay)
    assert _rates(recipe, tuple(rates)) == pytest.approx(list(rates.values()))
    assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, False)
    # As torchvision's RandomCrop pads unless told otherwise, and so the released code.
    assert recipe.data.augmentation == Augmentation(crop_padding=4, padding_mode="zeros", flip=True)
    assert recipe.backbone.shortcut == ("pooled_identity" if network.startswith("resnet") else None)


@pytest.mark.parametrize("network", IMAGENET)
def test_the_budget_on_imagenet(network: str) -> None:
    recipe = RECIPES[f"dhm_imagenet_{network}"]
    assert (recipe.data.batch_size, recipe.epochs, recipe.optimizer.weight_decay) == (256, 90, 1e-4)
    assert _rates(recipe, (30, 31, 60, 61, 89)) == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])
    assert (recipe.data.image_size, recipe.data.resize_size) == (224, 256)


@pytest.mark.parametrize("word", ["layer1_0", "layer1_0,layer2_1", '["layer1_0"]', "0", "0,1", "[0,1]"])
def test_forks_are_words(word: str) -> None:
    recipe, _ = engine.apply_overrides(RECIPES["dsn_digits"], engine.Plan(), [f"method.forks={word}"])
    assert recipe.method.forks == tuple(word.strip("[]").replace('"', "").split(","))


def test_digits_have_every_arm() -> None:
    methods = [RECIPES[f"{arm}_digits"].method for arm in ARMS[1:]]
    assert methods == [DSN(), DSL(), DHM()]
