"""Do InfoPro's recipes and those beside it have the published weights, schedules, optimizers and augmentation?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.learners.optimization import learning_rate_at
from engine.recipes import SGD
from tests.recipes.shipped import PAPER, RECIPES, ROWS, infopro_name, lambdas


def expected_lambdas(row: tuple[str, ...]) -> list[tuple[float, float]]:
    """Work the authors' formula out by hand: ratio = j / (K - 2), and 0 where K = 2."""
    count = int(row[3])
    first_1, first_2 = float(row[4]), float(row[5])
    last_1, last_2 = (first_1, first_2) if row[6] == "-" else (float(row[6]), float(row[7]))
    found = []
    for j in range(count - 1):
        ratio = j / (count - 2) if count > 2 else 0
        found.append((first_1 * (1 - ratio) + last_1 * ratio, first_2 * (1 - ratio) + last_2 * ratio))
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: infopro_name(*row[:4]))
def test_the_weights_are_the_published_ones(row: tuple[str, ...]) -> None:
    recipe = RECIPES[infopro_name(*row[:4])]
    assert (recipe.data.name, recipe.backbone.name, recipe.method.cuts) == row[:3]
    assert recipe.method.num_segments == int(row[3])
    assert recipe.method.head == "contrastive"
    np.testing.assert_allclose(lambdas(recipe.method), expected_lambdas(row), rtol=1e-12)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] == "cifar10" and row[2] == "published"])
def test_softmax_takes_the_weights_of_contrastive(row: tuple[str, ...]) -> None:
    recipe = RECIPES[f"infopro_softmax_cifar10_{row[1]}_k{row[3]}"]
    assert recipe.method.head == "softmax"
    np.testing.assert_allclose(lambdas(recipe.method), expected_lambdas(row), rtol=1e-12)
    assert recipe.method.cuts == "published"


@pytest.mark.parametrize(
    ("network", "classification"), [("resnet101", 0.75), ("resnet152", 1.0), ("resnext101_32x8d", 0.75)]
)
def test_imagenet_has_two_segments_and_softmax(network: str, classification: float) -> None:
    recipe = RECIPES[f"infopro_imagenet_{network}"]
    assert recipe.backbone.name == network
    assert (recipe.method.num_segments, recipe.method.cuts) == (2, "published_memory")
    assert recipe.method.head == "softmax"
    assert lambdas(recipe.method) == [(5.0, classification)]


SMALL = [name for name in PAPER if PAPER[name].data.name != "folder"]


@pytest.mark.parametrize("name", SMALL)
def test_the_schedule_of_small_images(name: str) -> None:
    recipe = PAPER[name]
    start = 0.1 if recipe.data.name == "stl10" else 0.8
    assert recipe.epochs == 160
    assert recipe.optimizer.learning_rate == start

    def rate(epoch: int) -> float:
        return learning_rate_at(recipe, 49, epoch - 1, 7)

    def base(epoch: int) -> float:
        return 0.5 * start * (1 + math.cos(math.pi * epoch / 160))

    assert rate(1) == pytest.approx(0.01, abs=1e-15)
    assert rate(2) == pytest.approx(0.1 * base(2) + 0.009)
    assert rate(10) == pytest.approx(0.9 * base(10) + 0.001)
    assert rate(11) == pytest.approx(base(11))
    assert rate(80) == pytest.approx(start / 2)
    assert rate(160) == 0


@pytest.mark.parametrize("name", [name for name in PAPER if PAPER[name].data.name == "folder"])
def test_the_schedule_of_imagenet(name: str) -> None:
    recipe = PAPER[name]
    assert recipe.epochs == 90
    assert learning_rate_at(recipe, 1252, 0, 0) == 0.4
    assert learning_rate_at(recipe, 1252, 0, 1251) == 0.4
    assert learning_rate_at(recipe, 1252, 45, 3) == pytest.approx(0.2)
    assert learning_rate_at(recipe, 1252, 89, 0) == pytest.approx(0.2 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize("name", PAPER)
def test_the_optimizer_is_the_published_one(name: str) -> None:
    optimizer = PAPER[name].optimizer
    assert isinstance(optimizer, SGD)
    assert (optimizer.kind, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == ("sgd", 0.9, True, 1e-4)


# batch size; crop padding, padding mode, flip, random resized crop; learning rate
IMAGES = {
    "cifar10": (1024, 4, "reflect", True, False, 0.8),
    "svhn": (1024, 2, "zeros", False, False, 0.8),
    "stl10": (128, 4, "zeros", True, False, 0.1),
    "folder": (1024, 0, "reflect", True, True, 0.4),
}


@pytest.mark.parametrize("name", PAPER)
def test_batches_and_augmentation_are_the_published_ones(name: str) -> None:
    recipe = PAPER[name]
    changes = recipe.data.augmentation
    assert IMAGES[recipe.data.name] == (
        recipe.data.batch_size,
        changes.crop_padding,
        changes.padding_mode,
        changes.flip,
        changes.random_resized_crop,
        recipe.optimizer.learning_rate,
    )
    assert changes.color_jitter == 0
    assert (recipe.data.train_limit, recipe.data.test_limit, recipe.data.validation_fraction) == (None, None, 0)


def test_imagenet_has_its_sizes_and_statistics() -> None:
    data = RECIPES["infopro_imagenet_resnet152"].data
    assert (data.image_size, data.resize_size) == (224, 256)
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
