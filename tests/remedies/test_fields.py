"""Does what a refusal of fields that contradict one another says lead to a recipe, or to a training?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import open_source
from engine.methods import method_of
from engine.recipes import Plan, Recipe, apply_overrides
from engine.recipes.measured_cuts import refuse_different_networks
from engine.timing import chosen_recipe
from engine.training.preview import check_batches

Words = list[str]
Prose = list[tuple[str, str]]
Take = Callable[[Words], None]

TASKS = Path(__file__).parents[1] / "tasks"
NUMBER = f"task.kind={TASKS / 'toy_task.py'}:Regression"
COLOURS = "data.augmentation.photometric_distortion=true data.augmentation.color_jitter=0.5"
CROP = "data.augmentation.crop=8,8"
MEASURED = "method.kind=dml method.peer_method.kind=infopro method.peer_method.cuts=measured backbone.widths=null"
# Words of which no recipe can be made, and what remedies in prose mean.
RECIPES: list[tuple[str, Prose]] = [
    (
        "numerics.recompute=blocks numerics.compile=true",
        [
            ("leave one of the two out", "numerics.recompute=none"),
            ("leave one of the two out", "numerics.compile=false"),
        ],
    ),
    ("numerics.recompute=blcks", [(r"did you mean '(\w+)'", "numerics.recompute={0}")]),
    ("numerics.recompute=-1", [(r"of blocks from (\d) to", "numerics.recompute={0}")]),
    (
        "backbone.weights_without=classifier",
        [("weights is not given: give it", "backbone.weights=/some/file.safetensors")],
    ),
    (
        "data.augmentation.scale=0.5,2 data.augmentation.crop_padding=0",
        [
            ("give their height and width as (crop)", "data.augmentation.{0}=8,8"),
            ("or leave (scale) out", "data.augmentation.{0}=null"),
        ],
    ),
    (f"{CROP} data.augmentation.scale=2,0.5 data.augmentation.crop_padding=0", []),
    (
        CROP,
        [
            ("(crop) and crop_padding .* leave one of them out", "data.augmentation.{0}=null"),
            ("crop and (crop_padding) .* leave one of them out", "data.augmentation.{0}=0"),
        ],
    ),
    (
        COLOURS,
        [
            ("(photometric_distortion) and .* leave one of them out", "data.augmentation.{0}=null"),
            ("and (color_jitter) are .* leave one of them out", "data.augmentation.{0}=0"),
        ],
    ),
    ("data.classes_per_batch=5", []),
    ("data.name=label_maps data.root=/somewhere data.classes_per_batch=4", []),
    ("method.kind=dml method.peers=1 method.on_loss=continue", []),
    (
        "method.kind=dml method.exchange=weights method.schedule=codistillation method.distance_weight=1",
        [],
    ),
    ("method.kind=gkt method.every_group=true method.store_learners=2", []),
    ("task.kind=segmentation task.evaluation_scales=1,1,0.5", []),
    ("optimizer={} optimizer.momentum=0.5", [("contradict each other; give one", "optimizer.momentum=0.5")]),
    ("schedule.kind=step schedule.milestones=5,2", []),
]
# The same of recipes that say what cannot be trained.
TRAININGS: list[tuple[str, Prose]] = [
    (
        "method.cuts=measured",
        [("or name the blocks", "method.cuts=layer1_0,layer2_0")],
    ),
    (
        f"method.kind=gkt {NUMBER}",
        [("such as (end_to_end),", "method.kind={0}")],
    ),
    (
        "method.kind=gkt task.kind=retrieval task.label_smoothing=0.1",
        [
            ("or choose (end_to_end)", "method.kind={0}"),
            ("distillation, (stochastic_depth)", "method.kind={0}"),
            ("a method that cuts", "method.kind=greedy"),
            ("one with branches in one learner", "method.kind=dhm"),
        ],
    ),
    ("method.kind=label_smoothing task.label_smoothing=0.1", []),
    (f"method.kind=greedy method.head=contrastive {NUMBER}", []),
    (f"method.head=contrastive {NUMBER}", []),
    (f"method.kind=greedy method.branches.kind=dhm {NUMBER}", [("leave the branches out", "method.branches=null")]),
    (f"method.kind=dml {NUMBER}", []),
    (f"method.kind=dml method.weight=0 method.confidence_weight=1 {NUMBER}", []),
    (
        "method.kind=end_to_end backbone.name=FILE:all_convolutions backbone.widths=null task.kind=retrieval",
        [("choose a backbone that ends with one", "backbone.name=resnet14")],
    ),
    (
        f"task.kind={TASKS / 'dense_task.py'}:Lighter method.kind=end_to_end backbone.name=resnet18 "
        "backbone.widths=null",
        [("choose a backbone that is made for this task", f"backbone.name={TASKS / 'dense_task.py'}:network")],
    ),
    (
        "method.kind=end_to_end backbone.name=resnet18 backbone.widths=null backbone.neck=batch_norm "
        "data.batch_size=43",
        [("change data.batch_size", "data.batch_size=22")],
    ),
]

# Words for two replicas, of which each trains on a part of every batch; what stands against them is set.
REPLICAS = [
    "method.kind=dml method.on_divergence=stop method.exchange=weights method.schedule=codistillation",
    "method.kind=dml method.on_divergence=stop method.distance_weight=1",
    "method.kind=dml method.on_divergence=stop method.on_loss=continue",
    "method.kind=greedy method.branches.kind=dsl",
    "method.kind=greedy task.kind=retrieval task.triplet_weight=1",
    "method.reconstruction_share=0.5",
]

FILE = """
from collections import OrderedDict
from torch import nn


def all_convolutions(num_classes, image_shape):
    first = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, padding=1), nn.ReLU())
    end = nn.Sequential(nn.Conv2d(4, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(first=first, end=end))
"""
METHOD = """
from engine.recipes import Segmented
from engine.recipes.settings import settings


@settings
class Own(Segmented):
    pass


class METHOD:
    def team(recipe, facts):
        raise NotImplementedError

    build_learner = team
"""


@pytest.fixture
def described(tiny_recipe: Callable[..., Recipe]) -> Take:
    """A function: make a recipe of these words."""

    def run(words: Words) -> None:
        apply_overrides(tiny_recipe(), Plan(), words)

    return run


@pytest.fixture
def planned(tiny_recipe: Callable[..., Recipe]) -> Take:
    """A function: make a recipe of these words, and all that its team has to hold."""

    def run(words: Words) -> None:
        recipe, _ = apply_overrides(tiny_recipe(), Plan(), words)
        source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
        try:
            method_of(recipe).team(recipe, source.facts)
            check_batches(recipe, source.facts)
        finally:
            source.close()

    return run


@pytest.mark.parametrize(("words", "prose"), [pytest.param(*row, id=row[0]) for row in RECIPES])
def test_a_recipe_can_be_made(words: str, prose: Prose, follow: Callable[..., None], described: Take) -> None:
    follow(described, words.split(), prose)


@pytest.mark.parametrize(("words", "prose"), [pytest.param(*row, id=row[0]) for row in TRAININGS])
def test_a_team_can_be_made(
    words: str, prose: Prose, tmp_path: Path, follow: Callable[..., None], planned: Take
) -> None:
    (tmp_path / "file.py").write_text(FILE)
    follow(planned, words.replace("FILE", str(tmp_path / "file.py")).split(), prose)


def test_branches_whose_gradients_are_scaled_by_each(follow: Callable[..., None], planned: Take) -> None:
    follow(planned, ["method.kind=dhm", "method.branch_learners=true", "numerics.precision=float16"])


@pytest.mark.parametrize("words", REPLICAS)
def test_parts_of_a_batch_can_be_trained_on(words: str, follow: Callable[..., None], start: Take) -> None:
    follow(start, f"{words} plan.replicas=2 plan.executor=ray".split())


def test_measured_cuts_of_different_networks(follow: Callable[..., None], tiny_recipe: Callable[..., Recipe]) -> None:
    def checked(words: Words) -> None:
        recipe, _ = apply_overrides(tiny_recipe(), Plan(), words)
        if recipe.method.inside.cuts == "measured":
            refuse_different_networks(recipe)

    words = f"{MEASURED} method.peers=resnet14,resnet20"
    follow(checked, words.split(), [("or give all the same backbone", "method.peers=resnet14,resnet14")])


def test_measured_cuts_of_a_method_that_makes_its_learners(
    tmp_path: Path, follow: Callable[..., None], tiny_recipe: Callable[..., Recipe]
) -> None:
    (tmp_path / "own.py").write_text(METHOD)

    def chosen(words: Words) -> None:
        recipe, plan = apply_overrides(tiny_recipe(), Plan(), words)
        source = open_source(recipe.data, recipe.seed)
        try:
            chosen_recipe(recipe, source.facts, plan, lambda line: None)
        finally:
            source.close()

    words = [f"method.kind={tmp_path}/own.py:Own", "method.cuts=measured", "method.num_segments=2"]
    remedies = [
        ("name the blocks in (method.cuts)", "{0}=layer1_0"),
        ("or choose another rule", "method.cuts=balanced_time"),
    ]
    follow(chosen, words, remedies)


@pytest.mark.parametrize(
    ("words", "remedies"),
    [
        (["epochs"], [("as in (epochs=2)", ["{0}"])]),
        (["=2"], [("expected field=value, as in (epochs=2)", ["{0}"])]),
        (["epochs=2", "epochs=3"], [("(epochs): given twice", ["{0}=3"])]),
        (["epochs=two\0"], [("(epochs): cannot be set so", ["{0}=2"])]),
    ],
)
def test_words_that_are_none(
    words: Words, remedies: list[tuple[str, Words]], refused: Callable[..., object], described: Take
) -> None:
    for says, right in remedies:
        found = refused(says, lambda: described(words))
        described([word.format(*found.groups()) for word in right])  # type: ignore[attr-defined]
