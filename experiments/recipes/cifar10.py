"""CIFAR-10 with ResNet-32 and ResNet-110 as in InfoPro (Wang et al. 2021), for every published number of segments K.

    local-learning train infopro_cifar10_resnet32 data.root=DIR
    local-learning train infopro_cifar10_resnet110_memory_k4 data.root=DIR data.download=true

Names are METHOD_cifar10_NETWORK, with _kN for K = N; without it K = 2. Variants name K always:
infopro_softmax_..._kN (cross-entropy in place of the contrastive loss), greedy_contrastive_..._kN (the reverse),
and infopro_cifar10_resnet110_memory_kN (cuts equal in memory, the paper's InfoPro*). K is 2, 4, 8 or 16; for
_memory 2, 3 or 4. Names that end in _tiny are for tests: 32 synthetic images, 2 batches, a narrow network.

Budget: 160 epochs, batch 1024, one Titan Xp (paper, Table 3). The hyper-parameters are those of the authors' code
(InfoPro-Pytorch, train.py and comand.sh), except where a function below says otherwise.

Published test error in %, mean and standard deviation of 5 trials (paper, Table 2). We have measured none of it
here; what we did measure is in docs/results/cifar10.md.

    network     method                  K = 1        K = 2         K = 4         K = 8         K = 16
    ResNet-32   end-to-end              7.37 (0.10)
                greedy, softmax                      10.30 (0.20)  16.07 (0.46)  21.19 (0.52)  24.59 (0.83)
                DGL                                   8.69 (0.12)  11.48 (0.20)  14.17 (0.28)  16.21 (0.36)
                InfoPro, softmax                      8.13 (0.23)   8.64 (0.25)  11.40 (0.18)  14.23 (0.42)
                InfoPro, contrastive                  7.76 (0.12)   8.58 (0.17)  11.13 (0.19)  12.75 (0.11)
    ResNet-110  end-to-end              6.50 (0.34)
                greedy, softmax                       8.21 (0.24)  13.16 (0.28)  15.61 (0.57)  18.92 (1.27)
                DGL                                   7.70 (0.28)  10.50 (0.11)  12.46 (0.37)  13.80 (0.15)
                InfoPro, softmax                      7.01 (0.34)   7.96 (0.06)   9.40 (0.27)  10.78 (0.28)
                InfoPro, contrastive                  6.42 (0.08)   7.30 (0.14)   8.93 (0.40)   9.90 (0.19)

InfoPro* on ResNet-110 (Table 3), error in % and GB of one GPU; end-to-end needs 9.40 GB:

    K = 2: 6.41 (0.13), 5.38 GB      K = 3: 6.74 (0.12), 4.22 GB      K = 4: 6.93 (0.20), 3.52 GB

No numbers under this budget are published for greedy with the contrastive loss and for PredSim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from engine.recipes import (
    DGL,
    SGD,
    Augmentation,
    Backbone,
    Cosine,
    Data,
    EndToEnd,
    Greedy,
    InfoPro,
    PredSim,
    Ramp,
    Recipe,
)

Head = Literal["softmax", "contrastive"]

NETWORKS = ("resnet32", "resnet110")
SEGMENTS = (2, 4, 8, 16)

# (network, K): lambda_1 of the first and the last local loss, then lambda_2 of both.
LAMBDAS: dict[tuple[str, int], tuple[float, float, float, float]] = {
    ("resnet32", 2): (5, 5, 1, 1),
    ("resnet32", 4): (6, 1, 0, 2),
    ("resnet32", 8): (5, 0, 0, 2),
    ("resnet32", 16): (5, 0.2, 0.05, 0.5),
    ("resnet110", 2): (5, 5, 0.5, 0.5),
    ("resnet110", 4): (1, 0, 0, 1),
    ("resnet110", 8): (5, 0, 0, 1),
    ("resnet110", 16): (5, 0.5, 0, 1),
}
MEMORY_LAMBDAS: dict[int, tuple[float, float, float, float]] = {
    2: (5, 5, 0.1, 0.1),
    3: (5, 5, 0, 0.1),
    4: (5, 5, 0, 0.1),
}


def _recipe(name: str, network: str, method: Any) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name=network),
        data=Data(
            name="cifar10",
            batch_size=1024,
            augmentation=Augmentation(crop_padding=4, padding_mode="reflect", flip=True),
        ),
        optimizer=SGD(learning_rate=0.8, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(interval="epoch", counts_from=1, warmup_epochs=10, warmup_learning_rate=0.01),
        epochs=160,
    )


def end_to_end(name: str, network: str) -> Recipe:
    """Back-propagation through the whole network."""
    return _recipe(name, network, EndToEnd())


def greedy(name: str, network: str, num_segments: int, head: Head) -> Recipe:
    """Greedy supervised learning; with the contrastive loss our own combination of published parts."""
    return _recipe(name, network, Greedy(num_segments=num_segments, cuts="published", head=head))


def dgl(name: str, network: str, num_segments: int) -> Recipe:
    """DGL under InfoPro's training schedule, as InfoPro's Table 2 compares it; DGL's own paper trains 50 epochs."""
    return _recipe(name, network, DGL(num_segments=num_segments, cuts="published"))


def predsim(name: str, network: str, num_segments: int) -> Recipe:
    """PredSim under InfoPro's training schedule; its own paper trains wide VGGs layer by layer with Adam."""
    return _recipe(name, network, PredSim(num_segments=num_segments, cuts="published"))


def infopro(name: str, network: str, num_segments: int, head: Head) -> Recipe:
    """InfoPro; for softmax the authors give no weights lambda, so it takes those of contrastive at the same K."""
    return _infopro(name, network, num_segments, "published", head, LAMBDAS[network, num_segments])


def infopro_memory(name: str, num_segments: int) -> Recipe:
    """InfoPro* on ResNet-110: segments that need equal memory, the first ones short."""
    return _infopro(name, "resnet110", num_segments, "published_memory", "contrastive", MEMORY_LAMBDAS[num_segments])


def _infopro(
    name: str,
    network: str,
    num_segments: int,
    cuts: Literal["published", "published_memory"],
    head: Head,
    weights: tuple[float, float, float, float],
) -> Recipe:
    first_1, last_1, first_2, last_2 = weights
    method = InfoPro(
        num_segments=num_segments,
        cuts=cuts,
        head=head,
        reconstruction_weight=Ramp(first=first_1, last=last_1),
        classification_weight=Ramp(first=first_2, last=last_2),
    )
    return _recipe(name, network, method)


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, optimizer, schedule, augmentation and cuts stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data, name="synthetic", num_classes=10, image_size=32, batch_size=16, synthetic_images=32
    )
    backbone = dataclasses.replace(recipe.backbone, widths=(4, 8, 16))
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[..., Recipe]] = {}
    for network in NETWORKS:
        place = f"cifar10_{network}"
        found[f"end_to_end_{place}"] = partial(end_to_end, network=network)
        for count in SEGMENTS:
            short = place if count == 2 else f"{place}_k{count}"
            full = f"{place}_k{count}"
            found[f"greedy_{short}"] = partial(greedy, network=network, num_segments=count, head="softmax")
            found[f"greedy_contrastive_{full}"] = partial(
                greedy, network=network, num_segments=count, head="contrastive"
            )
            found[f"dgl_{short}"] = partial(dgl, network=network, num_segments=count)
            found[f"infopro_{short}"] = partial(infopro, network=network, num_segments=count, head="contrastive")
            found[f"infopro_softmax_{full}"] = partial(infopro, network=network, num_segments=count, head="softmax")
            if network == "resnet32":
                found[f"predsim_{short}"] = partial(predsim, network=network, num_segments=count)
    for count in MEMORY_LAMBDAS:
        found[f"infopro_cifar10_resnet110_memory_k{count}"] = partial(infopro_memory, num_segments=count)
    named: dict[str, Callable[[], Recipe]] = {name: partial(make, name) for name, make in found.items()}
    return named | {f"{name}_tiny": partial(tiny, f"{name}_tiny", named[name]) for name in _SHRUNK}


_SHRUNK = (
    "end_to_end_cifar10_resnet32",
    "greedy_cifar10_resnet32",
    "dgl_cifar10_resnet32",
    "predsim_cifar10_resnet32",
    "infopro_cifar10_resnet32_k4",
    "infopro_softmax_cifar10_resnet32_k2",
)

RECIPES = _all()
