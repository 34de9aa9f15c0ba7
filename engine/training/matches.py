"""A check before anything is trained that what a task evaluates can be found at all.

Held-out images and subsets are stratified, so that a small one of many classes may hold one image of each. Then no
query has a right picture, and the evaluation could only fail after the training.
"""

from __future__ import annotations

import numpy as np

from engine.data import Source
from engine.data.appearances import is_packed
from engine.errors import DataError
from engine.recipes import Recipe
from engine.recipes.data import Data

_EVALUATED = ("validation", "test")


def check_matches(recipe: Recipe, source: Source) -> None:
    """Refuse images for a task that needs matches of which no query would have one.

    Readers of identities check query and gallery themselves; this is about images with classes, each of which is
    looked for among the others of its split.

    Args:
        recipe: of any task.
        source: its open images.

    Raises:
        DataError: a split that is evaluated holds at most one image of each class.
    """
    if not recipe.task.needs_matches or source.facts.label_maps:
        return
    for split in _EVALUATED:
        if split not in source.facts.sizes:
            continue
        labels = source.labels_of(split)
        if is_packed(labels) or len(np.unique(labels)) < len(labels):
            continue
        found, remedy = _cause(recipe.data, split, len(labels))
        raise DataError(
            f"{found}: at most one {split} image of each class, so that none has another to be found by. "
            f"task.kind={recipe.task.kind} needs a class with two {split} images: {remedy}"
        )


def _cause(data: Data, split: str, number: int) -> tuple[str, str]:
    if split == "validation" and data.validation_fraction:
        given = f"data.validation_fraction={data.validation_fraction} holds out {number:,} images"
        return given, "hold out more, or set data.validation_fraction=0"
    if split == "test" and data.test_limit is not None:
        return f"data.test_limit={data.test_limit} leaves {number:,} images", "give a larger limit, or leave it out"
    return f"data.name={data.name} has {number:,} {split} images", "add some, or choose another set"
