"""Does what is said of images, blocks, links, comparisons and plans, when it is too late for a field, lead on?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engine
from engine.data import open_source
from engine.planning.estimate import segment_counts, with_segments
from engine.planning.known_images import known_facts
from engine.recipes import EndToEnd, InfoPro, Plan, Recipe, Retrieval, apply_overrides, has_measured_cuts, with_cuts
from engine.runtimes.ray.links import HostCopies, PlannedLink, Rendezvous, Route, rings
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES
from engine.runtimes.ray.transport import choose_way
from engine.training.matches import check_matches
from tests.conftest import make_label_maps

Words = list[str]
Refused = Callable[..., re.Match[str]]
TinyRecipe = Callable[..., Recipe]

NETWORKS = """
from collections import OrderedDict
from torch import nn


def network(num_classes, image_shape, inplace=True):
    blocks = OrderedDict(first=nn.Conv2d(image_shape[0], 4, 3, padding=1))
    for name in ("second", "third"):
        blocks[name] = nn.Sequential(nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3, padding=1))
    blocks["end"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
    return nn.Sequential(blocks)
"""


@pytest.fixture
def matched(tiny_recipe: TinyRecipe) -> Callable[[Words], None]:
    """A function: look for matches among the images of a retrieval with these words."""

    def run(words: Words) -> None:
        recipe, _ = apply_overrides(tiny_recipe(task=Retrieval()), Plan(), words)
        source = open_source(recipe.data, recipe.seed)
        try:
            check_matches(recipe, source)
        finally:
            source.close()

    return run


def test_held_out_images_without_a_match(follow: Callable[..., None], matched: Callable[[Words], None]) -> None:
    more = [("hold out more", "data.validation_fraction=0.6")]
    follow(matched, ["data.validation_fraction=0.01"], more)


def test_few_test_images_without_a_match(follow: Callable[..., None], matched: Callable[[Words], None]) -> None:
    follow(matched, ["data.test_limit=10"], [("give a larger limit", "data.test_limit=20")])


def test_a_set_without_a_match(
    tmp_path: Path, follow: Callable[..., None], matched: Callable[[Words], None], refused: Refused
) -> None:
    def draw(split: str, place: int, number: int) -> None:
        picture = tmp_path / "set" / split / str(place) / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 8, 3), 60 * place + number, dtype=np.uint8)).save(picture)

    for place in range(4):
        draw("train", place, 0)
        draw("test", place, 0)
    limits = "data.train_limit=null data.test_limit=null data.batch_size=2 data.augmentation.crop_padding=0"
    words = f"data.name=folder data.root={tmp_path}/set {limits}".split()
    follow(matched, words, [("or choose another set", "data.name=digits data.root=null")])
    refused("add some", lambda: matched(words))
    draw("test", 0, 1)
    matched(words)


def test_blocks_that_are_run_again_and_change_their_input(
    tmp_path: Path, follow: Callable[..., None], train: Callable[[Words], None]
) -> None:
    (tmp_path / "networks.py").write_text(NETWORKS)
    own = f"method.kind=end_to_end backbone.name={tmp_path}/networks.py:network backbone.widths=null"
    out_of_place = ("make the first operation of each block out of place", 'backbone.options={{"inplace":false}}')
    follow(train, f"{own} numerics.recompute=blocks".split(), [out_of_place])


def test_gpus_whose_memory_cannot_be_shared(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in the memory of a GPU is refused as its driver would."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("CUDA error: invalid device context")

    monkeypatch.setattr(rings, "offer", refuse)
    route = Route("giver", "taker", ("features",), 2**22)
    places = {name: {"node": "one", "gpu": "GPU-a", "nccl": True} for name in ("giver", "taker")}

    def linked(plan: Plan) -> bool:
        meetings = {name: Rendezvous(name, None) for name in places}
        links = [PlannedLink(route, choose_way(plan, route, places), True, meetings["taker"].address)]
        with ThreadPoolExecutor(2) as beside:
            met = {
                name: beside.submit(meeting.meet, links, bytes(SECRET_BYTES), HostCopies(), 20.0)
                for name, meeting in meetings.items()
            }
            met["giver"].result().giving["taker"].give("features", torch.arange(4.0))
            return bool(met["taker"].result().taking["giver"].take("features").equal(torch.arange(4.0)))

    found = refused(r"with (plan\.transport=direct_host) messages pass through the memory", lambda: linked(Plan()))
    assert linked(apply_overrides(engine.load_recipe("infopro_digits"), Plan(), [found[1]])[1])


@pytest.fixture
def compare(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: begin a comparison of the tiny recipe with another; it ends when its runs would start."""

    class Accepted(Exception):
        """The comparison has begun."""

    def begin(*_: Any) -> None:
        raise Accepted

    monkeypatch.setattr("engine.comparison.driver._costs", begin)

    def run(second: Recipe, folder: str = "compared", **named: Any) -> None:
        recipes = {"first": tiny_recipe(), "second": second}
        with pytest.raises(Accepted):
            engine.compare(recipes, Plan(executor="process"), (0, 1), tmp_path / folder, **named)

    return run


def test_recipes_of_two_tasks(compare: Callable[..., None], tiny_recipe: TinyRecipe, refused: Refused) -> None:
    refused("expected recipes of one task", lambda: compare(tiny_recipe(task=Retrieval(), epochs=1)))
    compare(tiny_recipe(epochs=1))


def test_a_comparison_of_measured_cuts_that_is_damaged(
    compare: Callable[..., None],
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What is chosen is no matter here.
    monkeypatch.setattr(
        "engine.comparison.driver.chosen_recipe",
        lambda recipe, *_: with_cuts(recipe, ("layer1_0",)) if has_measured_cuts(recipe) else recipe,
    )
    measured = tiny_recipe(method=InfoPro(num_segments=2, cuts="measured"))
    compare(measured)
    content = tmp_path / "compared" / "comparison.json"
    values = json.loads(content.read_text())
    values["recipes"]["second"]["recipe"] = {}
    content.write_text(json.dumps(values))
    before = content.read_bytes()
    says = "a recipe in it is none .* give another --run-dir, or --resume (never)"
    never = refused(says, lambda: compare(measured))[1]
    compare(measured, "other")
    compare(measured, resume=never)
    assert content.read_bytes() == before


def test_images_that_are_not_here(
    tmp_path: Path, follow: Callable[..., None], refused: Refused, tiny_recipe: TinyRecipe
) -> None:
    def known(words: Words) -> None:
        known_facts(apply_overrides(tiny_recipe(), Plan(), words)[0])

    limits = "data.train_limit=null data.test_limit=null data.augmentation.crop_padding=0 data.batch_size=2"
    maps = f"data.name=label_maps data.root=/nowhere data.image_size=16 {limits} task.kind=segmentation"
    names = refused(r"as in (\S+), or data.root=DIR", lambda: known(maps.split()))[1]
    known([*maps.split(), names])
    root = make_label_maps(tmp_path / "maps", {"train": 4, "test": 2})
    known(maps.replace("/nowhere", str(root)).split())
    follow(known, f"data.name=cifar10 data.num_classes=7 {limits}".split())


def test_segments_of_a_method_that_does_not_cut(tiny_recipe: TinyRecipe, refused: Refused) -> None:
    facts, _ = known_facts(tiny_recipe())
    whole = tiny_recipe(method=EndToEnd())
    for counted in (lambda: with_segments(whole, 2, facts), lambda: segment_counts(whole, facts, [2])):
        refused("--k 2: .*leave --k out", counted)
    assert segment_counts(whole, facts, None) == [None]
    found = refused("give 1 to (\\d+)", lambda: segment_counts(tiny_recipe(), facts, [99]))
    assert segment_counts(tiny_recipe(), facts, [int(found[1])])
