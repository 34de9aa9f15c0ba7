"""Retrieval of identities: Market-1501 as in Deep Mutual Learning (Zhang et al. 2018), and a small set of characters.

    local-learning train dml_market1501_mobilenet data.root=DIR
    local-learning train dml_omniglot data.root=DIR

DIR is the folder of Market-1501 or DukeMTMC-reID as it is downloaded, or what `python -m experiments.omniglot` wrote.
Names that end in _tiny are for tests: synthetic images, a narrow network.

Market-1501: two MobileNets, or an InceptionV1 and a MobileNet (`_inception_v1_mobilenet`), Adam at 2e-4 with beta_1 =
0.5, batch 16, flips only, pixels scaled to [-1, 1], weight decay 4e-5 as in the released code. Budget: 100 000
iterations (paper), here 124 epochs of 809 steps. Pictures are resized from 128 x 64 to 224 x 224 at once; `_128x64`
keeps them as they are. `independent_...` is the control: the same two networks without an exchange. `_released` is what
the released code does and the paper does not mention: pictures by way of 160 x 64, ReLU6, dropout 0.001, label
smoothing 0.1, 200 000 steps (247 epochs). Left out of it: a batch of its own for each network, averaged weights in the
evaluation, no weight decay of depthwise convolutions, batch norms of decay 0.9997 and epsilon 0.001, TensorFlow's
initial weights.

Published mAP in %, without pre-training, single query, by trapezoids; those with * could not be checked in the text:

    Table 3      MobileNet, independent   46.07
    Table 4      InceptionV1, MobileNet   independent 65.26*, 46.07    DML 65.34*, 52.87*
                 MobileNet, MobileNet     independent 46.07, 46.07     DML 52.95*, 51.26*

`end_to_end_market1501_resnet50` is the usual strong baseline (Luo et al. 2019): 256 x 128, last stride 1, batches of 16
x 4, triplet loss, batch-norm neck, label smoothing, random erasing, Adam at 3.5e-4 with a warm-up, 120 epochs.
`dhm_market1501_resnet50` and `dhm_market1501_mobilenet` add dynamic hierarchical mimicking to it and to the MobileNet
of Deep Mutual Learning. That paper starts from ImageNet's weights; its optimizer, size and numbers are not known to us,
so here nothing but the method differs from the controls. With ImageNet's weights:

    local-learning train end_to_end_market1501_resnet50 data.root=DIR backbone.weights=FILE \\
        backbone.weights_without=classifier

We have measured none of it here; what we did measure of mutual learning is in docs/results/mutual-learning.md.

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
    Peer,
    Recipe,
    Retrieval,
    Step,
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
MOBILENET = Backbone(name="mobilenet_v1", stem="imagenet")
MIXED: Any = (Peer(backbone=Backbone(name="inception_v1", stem="imagenet")), Peer(backbone=MOBILENET))
RESNET50: dict[str, Any] = {"end_to_end": EndToEnd(), "dhm": DHM()}


TINY = (
    *("dml_omniglot", "infopro_omniglot", "dhm_omniglot"),
    *("dml_market1501_mobilenet", "end_to_end_market1501_resnet50"),
)


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
        backbone=MOBILENET,
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


def released(name: str, method: Any) -> Recipe:
    """As `market1501`, with what the released code of Deep Mutual Learning does besides."""
    paper = market1501(name, method, 224)
    return dataclasses.replace(
        paper,
        backbone=dataclasses.replace(MOBILENET, activation="relu6", dropout=0.001),
        data=dataclasses.replace(paper.data, first_size=(160, 64)),
        task=Retrieval(label_smoothing=0.1),
        epochs=247,
    )


def resnet50(name: str, method: Any) -> Recipe:
    """The baseline of Luo et al. 2019, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification"."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="resnet50", last_stride=1, neck="batch_norm"),
        data=Data(
            name="market1501",
            batch_size=64,
            classes_per_batch=16,
            image_size=(256, 128),
            stretch=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation=Augmentation(crop_padding=10, padding_mode="zeros", flip=True, random_erasing=0.5),
        ),
        task=Retrieval(label_smoothing=0.1, triplet_weight=1.0, triplet_margin=0.3),
        optimizer=Adam(learning_rate=3.5e-4, weight_decay=5e-4),
        schedule=Step(milestones=(40, 70), warmup_epochs=10),
        epochs=120,
    )


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, task, optimizer, schedule and augmentation stay what they are."""
    recipe = whole()
    data = dataclasses.replace(recipe.data, name="synthetic", num_classes=4, image_size=(32, 16), stretch=False)
    data = dataclasses.replace(data, batch_size=16, synthetic_images=32)
    if data.classes_per_batch is not None:
        data = dataclasses.replace(data, classes_per_batch=data.num_classes)
    backbone = Backbone(name="resnet8", widths=(4, 8, 8), neck=recipe.backbone.neck)
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {}
    for name, method in OMNIGLOT.items():
        found[name] = partial(omniglot, name, method)
    for arm, method in MARKET.items():
        for suffix, size in (("", 224), ("_128x64", (128, 64))):
            name = f"{arm}_market1501_mobilenet{suffix}"
            found[name] = partial(market1501, name, method, size)
        name = f"{arm}_market1501_mobilenet_released"
        found[name] = partial(released, name, method)
        name = f"{arm}_market1501_inception_v1_mobilenet"
        found[name] = partial(market1501, name, dataclasses.replace(method, peers=MIXED), 224)
    for arm, method in RESNET50.items():
        name = f"{arm}_market1501_resnet50"
        found[name] = partial(resnet50, name, method)
    found["dhm_market1501_mobilenet"] = partial(market1501, "dhm_market1501_mobilenet", DHM(), 224)
    for name in TINY:
        found[f"{name}_tiny"] = partial(tiny, f"{name}_tiny", found[name])
    return found


RECIPES = _all()
