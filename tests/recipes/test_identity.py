"""Does a recipe's identity follow from what decides the weights, and can a recipe not be changed?"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import engine
from engine.errors import RecipeError
from engine.recipes import (
    SGD,
    Backbone,
    Data,
    InfoPro,
    Plan,
    Recipe,
    apply_overrides,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
    weights_identity,
)
from tests.recipes.drawn_recipes import recipes


def start() -> Recipe:
    return Recipe(
        name="start",
        method=InfoPro(num_segments=4),
        backbone=Backbone(name="resnet14"),
        data=Data(name="cifar10", root="/one"),
    )


@pytest.mark.parametrize(
    "word",
    [
        *("name=other", "data.root=/two", "data.root=null", "data.download=true", "data.evaluation_batch_size=7"),
        *("numerics.recompute=blocks", "numerics.recompute=3"),
    ],
)
def test_where_images_lie_what_a_run_is_called_and_what_is_kept_in_memory_do_not_matter(word: str) -> None:
    recipe, _ = apply_overrides(start(), Plan(), [word])
    assert recipe != start()
    assert recipe_identity(recipe) == recipe_identity(start())


def test_a_recipe_of_an_earlier_version_is_the_same_run() -> None:
    # What the version before `data.image_column` gave to this recipe.
    assert recipe_identity(start()) == "e2f534ddbe385d791fee79565d61a6f55aa60e62008efc8e2016312f8e5abe86"
    assert recipe_to_dict(start())["data"]["image_column"] is None


EVALUATIONS = [
    ["task.evaluation_scales=0.5,2"],
    ["task.evaluation_scales=0.5"],
    ["task.evaluation_flip=true"],
    ["task.evaluation_scales=0.5,2", "task.evaluation_flip=true"],
]


def test_how_label_maps_are_evaluated_decides_the_scores_of_a_run_and_no_weight() -> None:
    once, _ = apply_overrides(start(), Plan(), ["task.kind=segmentation"])
    # What the version gave in which no scale was part of it.
    assert recipe_identity(once) == "1aedbfeb5ce4450e5aec21ab84811b33c811fa9babbc7ab936a04d7ed38c118c"
    others = [apply_overrides(once, Plan(), words)[0] for words in EVALUATIONS]
    assert len({recipe_identity(each) for each in (once, *others)}) == 1 + len(others)
    assert {weights_identity(each) for each in (once, *others)} == {weights_identity(once)}
    as_given, _ = apply_overrides(once, Plan(), ["task.evaluation_scales=1", "task.evaluation_flip=false"])
    assert recipe_identity(as_given) == recipe_identity(once)
    elsewhere, _ = apply_overrides(once, Plan(), ["task.final_mean=all"])
    assert weights_identity(elsewhere) != weights_identity(once)


MATTERS = [
    "data.image_column=mask",
    "seed=1",
    "epochs=161",
    "data.batch_size=64",
    "data.train_limit=100",
    "data.test_limit=100",
    "data.validation_fraction=0.1",
    "data.subset_seed=1",
    "data.image_size=48",
    "data.augmentation.flip=true",
    "data.augmentation.crop_padding=4",
    "data.augmentation.padding_mode=zeros",
    "method.num_segments=3",
    "method.cuts=published",
    "method.head=contrastive",
    "method.reconstruction_weight.last=2",
    "method.kind=greedy",
    "backbone.name=resnet20",
    "backbone.widths=[4, 8, 16]",
    "backbone.weights=start.safetensors",
    "optimizer.learning_rate=0.2",
    "optimizer.nesterov=false",
    "optimizer.kind=adam",
    "schedule.warmup_epochs=10",
    "schedule.kind=constant",
    "numerics.threads=2",
    "numerics.precision=bfloat16",
    "numerics.channels_last=true",
    "numerics.compile=true",
]


@pytest.mark.parametrize("word", MATTERS)
def test_everything_else_matters(word: str) -> None:
    recipe, _ = apply_overrides(start(), Plan(), [word])
    assert recipe_identity(recipe) != recipe_identity(start())
    assert weights_identity(recipe) != weights_identity(start())


def test_the_identity_does_not_depend_on_how_numbers_were_written() -> None:
    one = dataclasses.replace(start(), optimizer=SGD(learning_rate=1), epochs=2)
    other, _ = apply_overrides(start(), Plan(), ["optimizer.learning_rate=1.0", "epochs=2"])
    assert recipe_identity(one) == recipe_identity(other)


def test_the_identity_is_the_same_in_every_process() -> None:
    """Run folders are found again by it."""
    code = (
        "from engine.recipes import recipe_from_dict, recipe_identity; import json, sys; "
        "print(recipe_identity(recipe_from_dict(json.load(sys.stdin))))"
    )
    root = Path(engine.__file__).resolve().parent.parent
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(recipe_to_dict(start())),
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert done.stdout.strip() == recipe_identity(start())


@pytest.mark.parametrize("part", [start(), start().data, start().data.augmentation, start().method, Plan(), SGD()])
def test_nothing_can_be_changed(part: Any) -> None:
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, getattr(part, field.name))


def test_replace_checks_anew_and_leaves_the_old_one() -> None:
    recipe = start()
    assert dataclasses.replace(recipe, epochs=3).epochs == 3
    assert recipe.epochs == 160
    with pytest.raises(RecipeError):
        dataclasses.replace(recipe, epochs=0)


def test_positions_and_unknown_names_are_refused() -> None:
    with pytest.raises(RecipeError):
        SGD(0.1)  # type: ignore[call-arg,arg-type]
    with pytest.raises(RecipeError):
        SGD(lr=0.1)  # type: ignore[call-arg]


def replace_kept(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, numerics=dataclasses.replace(recipe.numerics, recompute="none"))


@settings(max_examples=40)
@given(recipes, recipes)
def test_recipes_that_differ_have_different_identities(one: Recipe, other: Recipe) -> None:
    one, other = (replace_kept(recipe) for recipe in (one, other))
    fields = ("method", "backbone", "optimizer", "schedule", "epochs", "seed", "numerics")
    if any(repr(getattr(one, field)) != repr(getattr(other, field)) for field in fields):
        assert recipe_identity(one) != recipe_identity(other)


def test_reconstructing_all_images_is_what_a_recipe_without_a_word_does() -> None:
    said, _ = apply_overrides(start(), Plan(), ["method.reconstruction_share=1"])
    half, _ = apply_overrides(start(), Plan(), ["method.reconstruction_share=0.5"])
    assert recipe_identity(said) == recipe_identity(start()) != recipe_identity(half)
    assert recipe_from_dict(recipe_to_dict(half)) == half
    with pytest.raises(engine.RecipeError, match=r"method\.reconstruction_share"):
        apply_overrides(start(), Plan(), ["method.reconstruction_share=0"])
