"""SVHN with ResNet-110 as in InfoPro (Wang et al. 2021), for every published number of segments K.

    local-learning train infopro_svhn_resnet110 data.root=DIR

Names are METHOD_svhn_resnet110, with _kN for K = N of 4, 8 and 16; without it K = 2. infopro_svhn_resnet110_tiny
is for tests: 32 synthetic images, 2 batches, a narrow network.

Budget: 160 epochs of the 73,257 images of the training split (without "extra"), batch 1024. The
hyper-parameters are those of the authors' code (InfoPro-Pytorch, train.py and comand.sh).

Published test error in %, mean and standard deviation of 5 trials (paper, Table 2). We have measured none of it
here; what we did measure is in docs/results/index.md.

    method                  K = 1        K = 2        K = 4        K = 8        K = 16
    end-to-end              3.07 (0.23)
    InfoPro, contrastive                 3.15 (0.03)  3.28 (0.11)  3.62 (0.11)  3.91 (0.16)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import SGD, Augmentation, Backbone, Cosine, Data, EndToEnd, InfoPro, Ramp, Recipe

# K: lambda_1 of the first and the last local loss, then lambda_2 of both.
LAMBDAS: dict[int, tuple[float, float, float, float]] = {
    2: (1, 1, 0.1, 0.1),
    4: (5, 0.5, 0, 1),
    8: (5, 0.5, 0, 2),
    16: (5, 0.5, 0.2, 1),
}


def _recipe(name: str, method: Any) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="resnet110"),
        data=Data(
            name="svhn",
            batch_size=1024,
            augmentation=Augmentation(crop_padding=2, padding_mode="zeros", flip=False),
        ),
        optimizer=SGD(learning_rate=0.8, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(interval="epoch", counts_from=1, warmup_epochs=10, warmup_learning_rate=0.01),
        epochs=160,
    )


def end_to_end(name: str) -> Recipe:
    """Back-propagation through the whole network."""
    return _recipe(name, EndToEnd())


def infopro(name: str, num_segments: int) -> Recipe:
    """InfoPro with contrastive heads, segments of equal numbers of layers."""
    first_1, last_1, first_2, last_2 = LAMBDAS[num_segments]
    method = InfoPro(
        num_segments=num_segments,
        cuts="published",
        head="contrastive",
        reconstruction_weight=Ramp(first=first_1, last=last_1),
        classification_weight=Ramp(first=first_2, last=last_2),
    )
    return _recipe(name, method)


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, optimizer, schedule, augmentation and cuts stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data, name="synthetic", num_classes=10, image_size=32, batch_size=16, synthetic_images=32
    )
    backbone = dataclasses.replace(recipe.backbone, widths=(4, 8, 16))
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {
        "end_to_end_svhn_resnet110": partial(end_to_end, "end_to_end_svhn_resnet110")
    }
    for count in LAMBDAS:
        name = "infopro_svhn_resnet110" + ("" if count == 2 else f"_k{count}")
        found[name] = partial(infopro, name, count)
    name = "infopro_svhn_resnet110"
    found[f"{name}_tiny"] = partial(tiny, f"{name}_tiny", found[name])
    return found


RECIPES = _all()
