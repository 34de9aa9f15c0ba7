"""Does a recipe's identity follow from what decides the weights, and can a recipe neither change nor be lost?"""

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
from hypothesis import strategies as st
from pydantic import ValidationError

import engine
from engine.recipes import (
    DGL,
    SGD,
    Adam,
    AdamW,
    Augmentation,
    Backbone,
    Constant,
    Cosine,
    Data,
    EndToEnd,
    Exponential,
    Greedy,
    InfoPro,
    Numerics,
    Plan,
    Polynomial,
    PredSim,
    Ramp,
    Recipe,
    RMSProp,
    Step,
    apply_overrides,
    plan_from_dict,
    plan_to_dict,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
    weights_identity,
)


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
    with pytest.raises(ValidationError):
        dataclasses.replace(recipe, epochs=0)


def test_positions_and_unknown_names_are_refused() -> None:
    with pytest.raises((TypeError, ValidationError)):
        SGD(0.1)  # type: ignore[call-arg,arg-type]
    with pytest.raises(ValidationError):
        SGD(lr=0.1)  # type: ignore[call-arg]


small = st.floats(1e-6, 10, allow_nan=False)
share = st.floats(0, 0.99)
count = st.integers(1, 2**40)
weights = st.floats(0, 100)
ramps = st.builds(Ramp, first=weights, last=weights)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
cuts = st.one_of(
    st.sampled_from(["published", "published_memory", "balanced_layers", "measured"]),
    st.lists(names, max_size=4).map(tuple),
)
segmented = {"num_segments": st.integers(1, 99), "cuts": cuts}
heads = st.sampled_from(["softmax", "contrastive"])
methods = st.one_of(
    st.just(EndToEnd()),
    st.builds(Greedy, head=heads, **segmented),
    st.builds(DGL, **segmented),
    st.builds(PredSim, similarity_weight=st.floats(0, 1), prediction_features=count, **segmented),
    st.builds(InfoPro, head=heads, reconstruction_weight=ramps, classification_weight=ramps, **segmented),
)
betas = st.tuples(share, share)
optimizers = st.one_of(
    st.builds(SGD, learning_rate=small, momentum=st.floats(0.01, 0.99), nesterov=st.booleans(), weight_decay=weights),
    st.builds(Adam, learning_rate=small, betas=betas, epsilon=small, weight_decay=weights),
    st.builds(AdamW, learning_rate=small, betas=betas, epsilon=small, weight_decay=weights),
    st.builds(RMSProp, learning_rate=small, alpha=share, momentum=share, epsilon=small, weight_decay=weights),
)
schedules = st.one_of(
    st.just(Constant()),
    st.builds(
        Cosine,
        interval=st.sampled_from(["epoch", "step"]),
        counts_from=st.sampled_from([0, 1]),
        warmup_epochs=st.integers(0, 99),
        warmup_learning_rate=weights,
    ),
    st.builds(Step, milestones=st.sets(st.integers(1, 999)).map(lambda found: tuple(sorted(found))), factor=small),
    st.builds(Polynomial, power=small, minimum=weights),
    st.builds(Exponential, factor=st.floats(0.01, 1)),
)
texts = st.text(min_size=1, max_size=12)
options = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=4)), max_size=3).map(tuple),
)
backbones = st.builds(
    Backbone,
    name=texts,
    shortcut=st.sampled_from([None, "projection", "identity"]),
    widths=st.one_of(st.none(), st.lists(st.integers(1, 999), max_size=4).map(tuple)),
    stem=st.sampled_from([None, "cifar", "imagenet"]),
    dropout=st.one_of(st.none(), share),
    weights=st.one_of(st.none(), st.text(max_size=12)),
    options=st.dictionaries(texts, options, max_size=3),
)
statistics = st.integers(1, 3).flatmap(
    lambda channels: st.tuples(
        st.lists(st.floats(-1, 1), min_size=channels, max_size=channels).map(tuple),
        st.lists(small, min_size=channels, max_size=channels).map(tuple),
    )
)
data_sets = st.builds(
    lambda given, **fields: Data(mean=given[0], std=given[1], **fields),
    st.one_of(st.just((None, None)), statistics),
    name=st.sampled_from(["digits", "cifar10", "svhn", "stl10", "folder", "parquet", "synthetic"]),
    root=st.one_of(st.none(), st.text(max_size=12)),
    download=st.booleans(),
    batch_size=count,
    train_limit=st.one_of(st.none(), count),
    validation_fraction=share,
    subset_seed=st.integers(0, 2**62),
    image_size=st.one_of(st.none(), st.integers(4, 1024)),
    label_column=st.one_of(st.none(), texts),
    num_classes=st.integers(2, 10**6),
    augmentation=st.builds(
        Augmentation,
        crop_padding=st.integers(0, 64),
        padding_mode=st.sampled_from(["reflect", "zeros"]),
        flip=st.booleans(),
        color_jitter=st.floats(0, 1),
    ),
)
processing = st.fixed_dictionaries(
    {
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
        "threads": st.integers(1, 1024),
        "deterministic": st.booleans(),
        "precision": st.sampled_from(["float32", "bfloat16", "float16"]),
        "channels_last": st.booleans(),
    }
)
# What is compiled is not run again block by block.
in_memory = st.sampled_from([{}, {"compile": True}, {"recompute": "blocks"}, {"recompute": 1}, {"recompute": 7}])
numerics = st.builds(lambda fields, kept: Numerics(**fields, **kept), processing, in_memory)
recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    method=methods,
    backbone=backbones,
    data=data_sets,
    optimizer=optimizers,
    schedule=schedules,
    epochs=count,
    seed=st.integers(0, 2**31 - 1),
    numerics=numerics,
)


@settings(max_examples=80)
@given(recipes)
def test_every_recipe_survives_json(recipe: Recipe) -> None:
    found = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert found == recipe
    assert repr(found) == repr(recipe)  # tells True from 1, and -0.0 from 0.0
    assert recipe_identity(found) == recipe_identity(recipe)
    assert recipe_to_dict(found) == recipe_to_dict(recipe)


def replace_kept(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, numerics=dataclasses.replace(recipe.numerics, recompute="none"))


@settings(max_examples=40)
@given(recipes, recipes)
def test_recipes_that_differ_have_different_identities(one: Recipe, other: Recipe) -> None:
    one, other = (replace_kept(recipe) for recipe in (one, other))
    fields = ("method", "backbone", "optimizer", "schedule", "epochs", "seed", "numerics")
    if any(repr(getattr(one, field)) != repr(getattr(other, field)) for field in fields):
        assert recipe_identity(one) != recipe_identity(other)


plans = st.builds(
    Plan,
    executor=st.sampled_from(["ray", "process"]),
    address=st.one_of(st.none(), texts),
    cpus_per_learner=st.one_of(st.none(), st.floats(0, 99)),
    gpus_per_learner=st.one_of(st.none(), st.floats(0, 9)),
    placement=st.sampled_from([None, "PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    window=st.one_of(st.none(), st.integers(1, 256)),
    start_timeout_seconds=small,
    checkpoint_every_steps=st.one_of(st.none(), count),
    keep_checkpoints=count,
)


@settings(max_examples=40)
@given(plans)
def test_every_plan_survives_json(plan: Plan) -> None:
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan


def test_reconstructing_all_images_is_what_a_recipe_without_a_word_does() -> None:
    said, _ = apply_overrides(start(), Plan(), ["method.reconstruction_share=1"])
    half, _ = apply_overrides(start(), Plan(), ["method.reconstruction_share=0.5"])
    assert recipe_identity(said) == recipe_identity(start()) != recipe_identity(half)
    assert recipe_from_dict(recipe_to_dict(half)) == half
    with pytest.raises(engine.RecipeError, match=r"method\.reconstruction_share"):
        apply_overrides(start(), Plan(), ["method.reconstruction_share=0"])
