"""STL-10 with ResNet-110 on 96x96 pixels as in InfoPro (Wang et al. 2021), for every published number of segments K.

    local-learning train infopro_stl10_resnet110 data.root=DIR

Names are METHOD_stl10_resnet110, with _kN for K = N of 4, 8 and 16; without it K = 2.
infopro_stl10_resnet110_memory_kN (N = 2, 3, 4) has cuts equal in memory, the paper's InfoPro*.
infopro_stl10_resnet110_tiny is for tests: 16 synthetic images, 2 batches, a narrow network.

Budget: 160 epochs of the 5,000 labelled images, batch 128, one Titan Xp (paper, Table 3). The hyper-parameters are
those of the authors' code (InfoPro-Pytorch, train.py and comand.sh), with one difference: a misspelt name in that
code gives its network 100 outputs for the 10 classes; ours has 10.

Published test error in %, mean and standard deviation of 5 trials (paper, Table 2). We have measured none of it
here; what we did measure is in docs/results/index.md.

    method                  K = 1         K = 2         K = 4         K = 8         K = 16
    end-to-end              22.27 (1.61)
    InfoPro, contrastive                  20.99 (0.64)  22.73 (0.40)  25.15 (0.52)  26.27 (0.48)

InfoPro* (Table 3), error in % and GB of one GPU; end-to-end needs 10.77 GB:

    K = 2: 20.95 (0.57), 6.15 GB      K = 3: 21.00 (0.52), 4.96 GB      K = 4: 21.22 (0.72), 4.08 GB
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from engine.recipes import SGD, Augmentation, Backbone, Cosine, Data, EndToEnd, InfoPro, Ramp, Recipe

# K: lambda_1 of the first and the last local loss, then lambda_2 of both.
LAMBDAS: dict[int, tuple[float, float, float, float]] = {
    2: (10, 10, 1, 1),
    4: (20, 5, 0.2, 2),
    8: (20, 5, 0.2, 1),
    16: (20, 10, 0.5, 0.1),
}
MEMORY_LAMBDAS: dict[int, tuple[float, float, float, float]] = {
    2: (20, 20, 1, 1),
    3: (20, 5, 0.5, 2),
    4: (20, 10, 0.5, 1),
}


def _recipe(name: str, method: Any) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="resnet110"),
        data=Data(
            name="stl10",
            batch_size=128,
            augmentation=Augmentation(crop_padding=4, padding_mode="zeros", flip=True),
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(interval="epoch", counts_from=1, warmup_epochs=10, warmup_learning_rate=0.01),
        epochs=160,
    )


def end_to_end(name: str) -> Recipe:
    """Back-propagation through the whole network."""
    return _recipe(name, EndToEnd())


def infopro(
    name: str,
    num_segments: int,
    cuts: Literal["published", "published_memory"],
    weights: tuple[float, float, float, float],
) -> Recipe:
    """InfoPro with contrastive heads, segments of equal numbers of layers or of equal memory."""
    first_1, last_1, first_2, last_2 = weights
    method = InfoPro(
        num_segments=num_segments,
        cuts=cuts,
        head="contrastive",
        reconstruction_weight=Ramp(first=first_1, last=last_1),
        classification_weight=Ramp(first=first_2, last=last_2),
    )
    return _recipe(name, method)


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, optimizer, schedule, augmentation and cuts stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data, name="synthetic", num_classes=10, image_size=96, batch_size=8, synthetic_images=16
    )
    backbone = dataclasses.replace(recipe.backbone, widths=(4, 8, 16))
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {
        "end_to_end_stl10_resnet110": partial(end_to_end, "end_to_end_stl10_resnet110")
    }
    for count, weights in LAMBDAS.items():
        name = "infopro_stl10_resnet110" + ("" if count == 2 else f"_k{count}")
        found[name] = partial(infopro, name, count, "published", weights)
    for count, weights in MEMORY_LAMBDAS.items():
        name = f"infopro_stl10_resnet110_memory_k{count}"
        found[name] = partial(infopro, name, count, "published_memory", weights)
    name = "infopro_stl10_resnet110"
    found[f"{name}_tiny"] = partial(tiny, f"{name}_tiny", found[name])
    return found


RECIPES = _all()
