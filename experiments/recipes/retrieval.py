"""Retrieval of identities: Market-1501 as in Deep Mutual Learning (Zhang et al. 2018), and a small set of characters.

    local-learning train dml_market1501_mobilenet data.root=DIR
    local-learning train dml_omniglot data.root=DIR

DIR is the folder of Market-1501 or DukeMTMC-reID as it is downloaded, or what `python -m experiments.omniglot` wrote.
Names that end in _tiny are for tests: synthetic images, a narrow network.

Market-1501: two MobileNets, Adam at 2e-4 with beta_1 = 0.5, batch 16, flips only, pixels scaled to [-1, 1], weight
decay 4e-5 as in the released code. Pictures are resized from 128 x 64 to 224 x 224 at once, in the released code by way
of 160 x 64. Its label smoothing, ReLU6, 200 000 steps on a batch of its own for each network, and averaged weights are
left out: the paper does not mention them. `_128x64` keeps the pictures as they are. `independent_...` is the control:
the same two networks without an exchange.

Budget: 100 000 iterations (paper), here 124 epochs of 809 steps. Published mAP, without pre-training, single query, by
trapezoids (paper, Table 3): independent 46.07 %. We have measured none of it here; what we did measure of mutual
learning is in docs/results/mutual-learning.md.

Omniglot (Lake et al. 2015): 136 characters to train and 106 others to test, each drawn once by each of 20 people, who
are the cameras; a ResNet-8 of widths (8, 16, 32) on 28 x 28 pixels, 10 epochs. The settings are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import (
    DHM,
    DML,
    DSL,
    SGD,
    Adam,
    Augmentation,
    Backbone,
    Constant,
    Cosine,
    Data,
    EndToEnd,
    InfoPro,
    Recipe,
    Retrieval,
)

OMNIGLOT: dict[str, Any] = {
    "end_to_end_omniglot": EndToEnd(),
    "independent_omniglot": DML(weight=0.0),
    "dml_omniglot": DML(),
    "dml_omniglot_k4": DML(peers=4),  # type: ignore[arg-type]
    "dsl_omniglot": DSL(),
    "dhm_omniglot": DHM(),
    "infopro_omniglot": InfoPro(),
}
MARKET: dict[str, Any] = {"dml": DML(), "independent": DML(weight=0.0)}


def omniglot(name: str, method: Any) -> Recipe:
    """Characters by the people who drew them."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="resnet8", widths=(8, 16, 32)),
        data=Data(
            name="identities",
            batch_size=64,
            image_size=28,
            augmentation=Augmentation(crop_padding=2),
        ),
        task=Retrieval(),
        optimizer=SGD(learning_rate=0.1, weight_decay=5e-4),
        schedule=Cosine(interval="step"),
        epochs=10,
    )


def market1501(name: str, method: Any, image_size: int | tuple[int, int]) -> Recipe:
    """People in the street by the camera that saw them."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="mobilenet_v1", stem="imagenet"),
        data=Data(
            name="market1501",
            batch_size=16,
            image_size=image_size,
            stretch=True,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            augmentation=Augmentation(flip=True),
        ),
        task=Retrieval(),
        optimizer=Adam(learning_rate=2e-4, betas=(0.5, 0.999), weight_decay=4e-5),
        schedule=Constant(),
        epochs=124,
    )


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, task, optimizer, schedule and augmentation stay what they are."""
    recipe = whole()
    data = dataclasses.replace(recipe.data, name="synthetic", num_classes=4, image_size=(32, 16), stretch=False)
    data = dataclasses.replace(data, batch_size=16, synthetic_images=32)
    backbone = Backbone(name="resnet8", widths=(4, 8, 8))
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {}
    for name, method in OMNIGLOT.items():
        found[name] = partial(omniglot, name, method)
    for arm, method in MARKET.items():
        for suffix, size in (("", 224), ("_128x64", (128, 64))):
            name = f"{arm}_market1501_mobilenet{suffix}"
            found[name] = partial(market1501, name, method, size)
    for name in ("dml_omniglot", "infopro_omniglot", "dhm_omniglot", "dml_market1501_mobilenet"):
        found[f"{name}_tiny"] = partial(tiny, f"{name}_tiny", found[name])
    return found


RECIPES = _all()
