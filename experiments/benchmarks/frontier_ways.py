"""The ways of training that `experiments.benchmarks.frontier` compares."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.data import open_source
from engine.planning import compare_cuts
from engine.planning.estimate import RECOMPUTED
from engine.recipes import Backbone, Data, EndToEnd, Greedy, InfoPro, Numerics, Recipe

# Network: side of the images, images of a batch.
NETWORKS = {"resnet32": (32, 128), "resnet110": (32, 32), "resnet50": (224, 4)}
METHODS: dict[str, Any] = {"infopro": InfoPro, "greedy": Greedy}
BATCHES = 4
"""Different ones, over which all ways go again and again."""


@dataclass(frozen=True)
class Way:
    """One way of training a network.

    Attributes:
        family: end_to_end, checkpointing, or a method.
        place: process or ray.
        recipe: what is trained.
        chunks: of checkpointing; 0 elsewhere.
    """

    family: str
    place: str
    recipe: Recipe
    chunks: int = 0

    @property
    def name(self) -> str:
        """In words."""
        if self.chunks:
            return f"checkpointing, {self.chunks} chunks"
        parts = (
            ["end to end"] if self.family == "end_to_end" else [f"{self.family}, K = {self.recipe.method.num_segments}"]
        )
        recompute = self.recipe.numerics.recompute
        parts += [] if recompute == "none" else [f"recompute={recompute}"]
        return ", ".join(parts + (["Ray"] if self.place == "ray" else []))


def ways_of(network: str, options: argparse.Namespace) -> Iterator[Way]:
    """Yield all ways to train a network, end to end first."""
    side, rows = NETWORKS[network]
    rows = options.batch_size or rows
    data = Data(
        name="synthetic",
        num_classes=10,
        image_size=side,
        synthetic_images=BATCHES * rows,
        batch_size=rows,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    numerics = Numerics(threads=1, device="cpu")
    whole = Recipe(name="frontier", method=EndToEnd(), backbone=Backbone(name=network), data=data, numerics=numerics)
    settings: list[Any] = [int(word) if word.isdecimal() else word for word in options.recompute.split(",")]
    counts = [int(word) for word in options.k.split(",")]
    yield Way("end_to_end", "process", whole)
    if 1 in counts:
        for recompute in settings:
            if recompute != "none":
                yield Way("end_to_end", "process", _recomputing(whole, recompute))
    for chunks in map(int, filter(None, options.chunks.split(","))):
        yield Way("checkpointing", "process", whole, chunks)
    for family in options.methods:
        for count in counts:
            for recompute in settings if count > 1 else ():
                method = METHODS[family](num_segments=count, cuts="balanced_memory")
                recipe = _recomputing(dataclasses.replace(whole, method=method), recompute)
                if recompute != "none":
                    recipe = dataclasses.replace(recipe, method=dataclasses.replace(method, cuts=_cuts(recipe, count)))
                for place in options.on:
                    yield Way(family, place, recipe)


def _recomputing(recipe: Recipe, recompute: Any) -> Recipe:
    return dataclasses.replace(recipe, numerics=dataclasses.replace(recipe.numerics, recompute=recompute))


def _cuts(recipe: Recipe, count: int) -> tuple[str, ...]:
    """Return the blocks after which to cut, so that memory is balanced where blocks are run again."""
    source = open_source(recipe.data, recipe.seed)
    found = {cut.rule: cut.blocks for cut in compare_cuts(recipe, source.facts, count)}
    source.close()
    return found[RECOMPUTED]
