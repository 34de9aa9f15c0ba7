"""Networks whose blocks give tokens or maps with channels last: trained, or told in one message what takes maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import engine
from engine.data import open_source
from engine.errors import RecipeError
from engine.methods import method_of, networks_sha256
from engine.planning.estimate import estimate_team
from engine.planning.known_images import known_facts
from engine.recipes import METHODS, Augmentation, Backbone, Recipe
from engine.runtimes import ProcessRuntime
from engine.timing import chosen_recipe

Make = Callable[..., Recipe]

NETWORK = '''
from collections import OrderedDict

import torch
from torch import nn


class Patches(nn.Module):
    """Images [B, C, 8, 8] to tokens [B, 17, D], a class token at the front."""

    def __init__(self, channels, width):
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, images):
        tokens = self.embedding(images).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1)


class Residual(nn.Module):
    """A block that can be left out: x + f(x)."""

    bypassable = True

    def __init__(self, width):
        super().__init__()
        self.branch_end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, tokens):
        return tokens + self.branch_end(tokens)


class MeanOfTokens(nn.Module):
    def forward(self, tokens):
        return tokens.mean(dim=1)


class ChannelsLast(nn.Module):
    """Maps [B, C, 8, 8] to maps with channels last [B, 4, 4, D], as Swin transformers give them."""

    feature_layout = "channels_last"

    def __init__(self, channels, width):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 2, stride=2)

    def forward(self, images):
        return self.patches(images).permute(0, 2, 3, 1)


class Mixer(nn.Sequential):
    feature_layout = "channels_last"


class Merging(nn.Module):
    """Maps with channels last [B, H, W, D] to half of their height and width."""

    feature_layout = "channels_last"

    def forward(self, maps):
        return maps[:, ::2, ::2]


class MeanOfMaps(nn.Module):
    def forward(self, maps):
        return maps.mean(dim=(1, 2))


def channels_last(num_classes, image_shape, merges=False):
    blocks = OrderedDict(patches=ChannelsLast(image_shape[0], 8))
    for index in range(5):
        blocks[f"mixer{index}"] = Mixer(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())
    if merges:
        blocks["merging"] = Merging()
    blocks["classifier"] = nn.Sequential(MeanOfMaps(), nn.Linear(8, num_classes))
    return nn.Sequential(blocks)


def network(num_classes, image_shape, droppable=False, maps=0):
    width = 8
    blocks = OrderedDict()
    channels = image_shape[0]
    for index in range(maps):
        blocks[f"convolution{index}"] = nn.Conv2d(channels, 4, 3, padding=1)
        channels = 4
    blocks["patches"] = Patches(channels, width)
    for index in range(5):
        encoder = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True)
        blocks[f"encoder{index}"] = Residual(width) if droppable else encoder
    blocks["classifier"] = nn.Sequential(MeanOfTokens(), nn.LayerNorm(width), nn.Linear(width, num_classes))
    return nn.Sequential(blocks)
'''

TRAINS: dict[str, dict[str, Any]] = {
    "end_to_end": {},
    "label_smoothing": {},
    "data_mix": {},
    "cs_kd": {},
    "ps_kd": {},
    "lwr": {},
    "dlb": {},
    "dhm": {},
    "dml": {"feature_weight": 0.1},
    "gkt": {},
    "mkf": {},
    "st": {},
    "stochastic_depth": {},
}
WITHOUT_BLOCKS = ("gkt", "mkf", "st", "stochastic_depth")
NEEDS_MAPS: dict[str, tuple[dict[str, Any], str, str]] = {
    "greedy": ({}, "encoder1", "the linear head takes maps [C, H, W] or vectors [C]"),
    "dgl": ({}, "encoder1", "the DGL head takes maps [C, H, W]"),
    "infopro": ({}, "encoder1", "the decoder takes maps [C, H, W]"),
    "predsim": ({}, "encoder1", "the PredSim head takes maps [C, H, W]"),
    "one": ({}, "patches", "method.kind=one, which copies the last stage, takes maps [C, H, W]"),
    "dsn": ({}, "encoder0", "the linear head takes maps [C, H, W] or vectors [C]"),
    "dsl": ({"shape": "linear"}, "encoder2", "the linear head takes maps [C, H, W] or vectors [C]"),
    "dhm": ({"shape": "linear"}, "encoder2", "the linear head takes maps [C, H, W] or vectors [C]"),
    "dml": (
        {"peer_method": {"kind": "greedy", "cuts": "balanced_memory"}},
        "patches",
        "the linear head takes maps [C, H, W] or vectors [C]",
    ),
}


@pytest.fixture
def make(tiny_recipe: Make, tmp_path: Path) -> Make:
    """A function: kind and settings of a method, and options of the network, to a recipe of 2 steps."""
    file = tmp_path / "own.py"
    file.write_text(NETWORK)

    def build(kind: str, settings: dict[str, Any] | None = None, network: str = "network", **options: Any) -> Recipe:
        return tiny_recipe(
            method=TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **(settings or {})}),
            backbone=Backbone(name=f"{file}:{network}", options=options),
            epochs=1,
            data={"train_limit": 12, "test_limit": 10, "batch_size": 6, "augmentation": Augmentation()},
        )

    return build


def train(recipe: Recipe, folder: Path) -> engine.Result:
    return engine.train(recipe, engine.Plan(executor="process"), folder)


def assert_trains(recipe: Recipe) -> None:
    """Take two steps, and evaluate a batch."""
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    team = method_of(recipe).team(recipe, source.facts)
    runtime = ProcessRuntime(recipe, source.facts, team, source.steps_per_epoch())
    weights = []
    for step in range(2):
        runtime.submit(team.program(step), source.batch(0, step))
        weights.append(networks_sha256(team.networks, source.facts, runtime.ask("state").result()))
    runtime.submit(team.evaluation, next(source.evaluation_batches("test")))
    runtime.close()
    source.close()
    assert weights[0] != weights[1]


@pytest.mark.parametrize("kind", TRAINS)
def test_methods_without_heads_on_hidden_features_train_it(make: Make, kind: str) -> None:
    assert_trains(make(kind, TRAINS[kind], droppable=kind in WITHOUT_BLOCKS))


@pytest.mark.parametrize("kind", ["end_to_end", "dlb", "dml"])
def test_maps_with_channels_last_are_trained_whole(make: Make, kind: str) -> None:
    assert_trains(make(kind, TRAINS[kind], "channels_last"))


@pytest.mark.parametrize("kind", ["greedy", "dgl", "infopro", "predsim", "dsn", "one"])
def test_maps_with_channels_last_are_refused_with_a_remedy(make: Make, kind: str) -> None:
    recipe = make(kind, {}, "channels_last")
    with pytest.raises(RecipeError) as raised:
        method_of(recipe).team(recipe, known_facts(recipe)[0])
    assert " gives maps with channels last [H, W, C] of shape (4, 4, 8), but " in str(raised.value)
    assert "takes maps [C, H, W]" in str(raised.value)
    assert "method.kind=end_to_end" in str(raised.value)


def test_a_last_stage_with_channels_last_is_not_copied(make: Make) -> None:
    recipe = make("one", {}, "channels_last", merges=True)
    with pytest.raises(RecipeError, match="block 'mixer4' gives maps with channels last .* takes maps .*resnet20"):
        method_of(recipe).team(recipe, known_facts(recipe)[0])


@pytest.mark.parametrize("kind", NEEDS_MAPS)
def test_what_takes_maps_says_so_with_a_remedy_that_works(make: Make, kind: str) -> None:
    settings, block, takes = NEEDS_MAPS[kind]
    recipe = make(kind, settings)
    with pytest.raises(RecipeError) as raised:
        method_of(recipe).team(recipe, known_facts(recipe)[0])
    assert f"block '{block}' gives tokens [N, D] of shape (17, 8), but {takes}: " in str(raised.value)
    assert "method.kind=end_to_end" in str(raised.value)


def trains_it(make: Make, kind: str) -> bool:
    """Return whether a method as it comes trains a network of tokens; it may need maps, but has to say so."""
    # Blocks that can be left out are no harm to a method that leaves none out.
    recipe, refusal = make(kind, droppable=True), ""
    try:
        assert_trains(recipe)
    except RecipeError as error:
        refusal = str(error)
    assert not refusal or ("takes maps [C, H, W]" in refusal and "method.kind=end_to_end" in refusal)
    return not refusal


def test_every_other_method_trains_it_or_says_that_it_takes_maps(make: Make) -> None:
    assert trains_it(make, "gkt") and not trains_it(make, "greedy")
    for kind, settings in METHODS.items():
        # Whatever needs the weights of a teacher is looked at below.
        if kind not in {*TRAINS, *NEEDS_MAPS} and not settings.reads_weights:
            trains_it(make, kind)


@pytest.mark.slow
def test_it_is_trained_as_a_whole_and_teaches_another(make: Make, tmp_path: Path) -> None:
    teacher = make("end_to_end")
    train(teacher, tmp_path / "teacher")
    settings = {"teacher": str(tmp_path / "teacher"), "teacher_backbone": teacher.backbone.name}
    assert train(make("distillation", settings), tmp_path / "student").weights_sha256


@pytest.mark.parametrize("kind", WITHOUT_BLOCKS)
def test_sub_networks_ask_for_blocks_that_can_be_left_out_and_not_for_maps(make: Make, kind: str) -> None:
    recipe = make(kind)
    with pytest.raises(RecipeError, match="set bypassable = True on such blocks of your own network"):
        method_of(recipe).team(recipe, known_facts(recipe)[0])


def cut_after(recipe: Recipe) -> list[str]:
    """Return the names of the last blocks of all segments but the last."""
    return [learner.blocks[-1] for learner in method_of(recipe).team(recipe, known_facts(recipe)[0]).learners[:-1]]


def test_blocks_that_give_maps_can_be_cut_after(make: Make) -> None:
    with pytest.raises(RecipeError) as raised:
        cut_after(make("greedy", maps=2))
    assert "cut after a block whose features it takes (convolution0, convolution1), or choose" in str(raised.value)
    assert cut_after(make("greedy", {"cuts": ["convolution1"]}, maps=2)) == ["convolution1"]
    with pytest.raises(RecipeError) as raised:
        cut_after(make("dsn", maps=2))
    assert "blocks whose features it takes (convolution0, convolution1), or choose" in str(raised.value)
    assert cut_after(make("dsn", {"forks": ["convolution0"]}, maps=2)) == []


@pytest.mark.parametrize("rule", ["balanced_memory", "balanced_time"])
def test_balanced_cuts_go_where_a_head_can_stand(make: Make, rule: str) -> None:
    (block,) = cut_after(make("greedy", {"cuts": rule}, maps=2))
    assert block in ("convolution0", "convolution1")
    with pytest.raises(RecipeError, match="block 'patches' gives tokens"):
        cut_after(make("greedy", {"cuts": rule}))


def test_measured_cuts_go_where_a_head_can_stand(make: Make) -> None:
    for maps in (2, 1):
        recipe = make("greedy", {"cuts": "measured"}, maps=maps)
        chosen = chosen_recipe(recipe, known_facts(recipe)[0], engine.Plan(), lambda line: None)
        assert cut_after(chosen)[0].startswith("convolution")
    recipe = make("greedy", {"cuts": "measured"})
    with pytest.raises(RecipeError, match="block 'patches' gives tokens"):
        chosen_recipe(recipe, known_facts(recipe)[0], engine.Plan(), lambda line: None)


def test_its_memory_is_foretold(make: Make) -> None:
    recipe = make("end_to_end")
    facts, _ = known_facts(recipe)
    assert estimate_team(recipe, facts, engine.Plan()).device_bytes > 0
