"""ImageNet (2012) with ResNet-101, ResNet-152 and ResNeXt-101 as in InfoPro (Wang et al. 2021), in two segments.

    local-learning train infopro_imagenet_resnet101 data.root=DIR

The segments are equal in memory. DIR holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. NAME_tiny is for tests: 8
synthetic images of 128x128 pixels, 2 batches, and ResNet-18 or ResNeXt-50 cut after the same block.

Budget: 90 epochs, batch 1024 split over 8 V100 (paper, Table 4, which has 512 for ResNeXt-101; the authors' README has
1024, and so has the recipe). The hyper-parameters are those of the authors' code (InfoPro-Pytorch, imagenet_DDP.py).
Here every learner takes the whole batch on one device, which needs about 8 times the memory of each GPU below, and 16
times for ResNeXt-101; with a smaller data.batch_size, lower optimizer.learning_rate in proportion.

Published single-crop validation error in % and GB of each GPU (paper, Table 4). We have measured none of it here;
what we did measure is in docs/results/index.md.

    network             end-to-end: top-1, top-5, GB     InfoPro*, K = 2: top-1, top-5, GB
    ResNet-101          22.03, 5.93, 19.71               21.85, 5.89, 12.06
    ResNet-152          21.60, 5.92, 26.29               21.45, 5.84, 15.53
    ResNeXt-101 32x8d   20.64, 5.40, 19.22               20.35, 5.28, 11.55    (batch 512)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import SGD, Augmentation, Backbone, Cosine, Data, EndToEnd, InfoPro, Ramp, Recipe, Segmented

# lambda_1 and lambda_2 of the only local loss.
LAMBDAS: dict[str, tuple[float, float]] = {
    "resnet101": (5, 0.75),
    "resnet152": (5, 1),
    "resnext101_32x8d": (5, 0.75),
}
# Of the tiny recipes: a small network, for which no cuts are published, and the block after which the large one is cut.
TINY = {"resnet101": ("resnet18", "layer2_0"), "resnext101_32x8d": ("resnext50_32x4d", "layer2_2")}


def _recipe(name: str, network: str, method: Any) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name=network),
        data=Data(
            name="folder",
            batch_size=1024,
            image_size=224,
            resize_size=256,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation=Augmentation(random_resized_crop=True, flip=True),
        ),
        optimizer=SGD(learning_rate=0.4, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(interval="epoch", counts_from=0, warmup_epochs=0),
        epochs=90,
    )


def end_to_end(name: str, network: str) -> Recipe:
    """Back-propagation through the whole network."""
    return _recipe(name, network, EndToEnd())


def infopro(name: str, network: str) -> Recipe:
    """InfoPro* with softmax heads and two segments, the first one short."""
    reconstruction, classification = LAMBDAS[network]
    method = InfoPro(
        num_segments=2,
        cuts="published_memory",
        head="softmax",
        reconstruction_weight=Ramp(first=reconstruction, last=reconstruction),
        classification_weight=Ramp(first=classification, last=classification),
    )
    return _recipe(name, network, method)


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; losses, optimizer, schedule and augmentation stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data,
        name="synthetic",
        num_classes=8,
        image_size=128,
        resize_size=None,
        batch_size=4,
        synthetic_images=8,
    )
    small, block = TINY[recipe.backbone.name]
    assert isinstance(recipe.method, Segmented)
    method = dataclasses.replace(recipe.method, cuts=(block,))
    backbone = dataclasses.replace(recipe.backbone, name=small)
    return dataclasses.replace(recipe, name=name, method=method, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {}
    for network in LAMBDAS:
        for method, make in (("end_to_end", end_to_end), ("infopro", infopro)):
            name = f"{method}_imagenet_{network}"
            found[name] = partial(make, name, network)
    for network in TINY:
        name = f"infopro_imagenet_{network}"
        found[f"{name}_tiny"] = partial(tiny, f"{name}_tiny", found[name])
    return found


RECIPES = _all()
