"""Are the recipes for Cityscapes those of InfoPro's code, and are those for CamVid alike but for their methods?"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine import backbones
from engine.learners.optimization import learning_rate_at
from engine.planning.known_images import known_facts
from engine.recipes import InfoPro, load_recipe, shipped_recipes

CITYSCAPES = [name for name in shipped_recipes() if "_cityscapes_" in name]
CAMVID = [name for name in shipped_recipes() if "_camvid_" in name]


@pytest.mark.parametrize(
    ("ending", "weights", "batch_size", "crop", "rate"),
    [
        ("", (1.5, 1.0), 8, (512, 1024), 0.01),
        ("_batch12", (1.0, 0.1), 12, (512, 1024), 0.015),
        ("_640x1280", (2.0, 1.0), 8, (640, 1280), 0.015),
    ],
)
def test_the_three_published_settings(
    ending: str, weights: tuple[float, float], batch_size: int, crop: tuple[int, int], rate: float
) -> None:
    recipe = load_recipe(f"infopro_cityscapes_resnet101{ending}")
    method = recipe.method
    assert isinstance(method, InfoPro)
    assert (method.reconstruction_weight.at(0, 2), method.classification_weight.at(0, 2)) == weights
    assert (recipe.data.batch_size, recipe.data.augmentation.crop) == (batch_size, crop)
    steps = -(-2975 // batch_size)
    assert abs(recipe.epochs * steps - 40_000) < steps
    assert learning_rate_at(recipe, steps, 0, 0) == rate
    last = learning_rate_at(recipe, steps, recipe.epochs - 1, steps - 1)
    assert last == pytest.approx((rate - 1e-4) * (1 / (recipe.epochs * steps)) ** 0.9 + 1e-4)


@pytest.mark.parametrize("name", CITYSCAPES)
def test_all_but_the_method_and_the_setting_is_as_released(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.task.kind, recipe.task.final_mean, recipe.task.local_mean) == ("segmentation", "all", "labelled")
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay, recipe.optimizer.nesterov) == (0.9, 5e-4, False)
    changes = recipe.data.augmentation
    assert (changes.scale, changes.largest_class_share, changes.photometric_distortion, changes.flip) == (
        (0.5, 2.0),
        0.75,
        True,
        True,
    )
    assert recipe.backbone.auxiliary_heads
    if recipe.method.kind != "end_to_end":
        with torch.device("meta"):
            network = backbones.build(recipe.backbone, 19, (3, 512, 1024), 0)
        ((_, stop), _) = backbones.cut(network, 2, recipe.method.cuts, recipe.backbone.name, (3, 512, 1024))
        # 13 of the 23 blocks of the third stage.
        assert list(network._modules)[stop - 1] == "layer3_12"


def test_camvid_compares_methods_and_nothing_else() -> None:
    alike = load_recipe("end_to_end_camvid_resnet18")
    for name in CAMVID:
        recipe = load_recipe(name)
        assert dataclasses.replace(recipe, name=alike.name, method=alike.method) == alike
        assert name.startswith(recipe.method.kind)
        assert recipe.method.num_segments == (
            4 if name.endswith("_k4") else 1 if "_k" not in name and recipe.method.kind in ("end_to_end", "dml") else 2
        )


def test_facts_are_known_without_pictures() -> None:
    facts, assumed = known_facts(load_recipe("infopro_cityscapes_resnet101"))
    assert (facts.image_shape, facts.evaluation_shape, assumed) == ((3, 512, 1024), (3, 1024, 2048), "")
    assert (facts.num_classes, facts.class_names[18], facts.sizes["train"]) == (19, "bicycle", 2975)
    facts, assumed = known_facts(load_recipe("infopro_camvid_resnet18"))
    assert (facts.image_shape, facts.evaluation_shape) == ((3, 72, 96), (3, 90, 120))
    assert facts.sizes == {"train": 367, "validation": 101, "test": 233}
    assert assumed.endswith("as many as in CamVid")
