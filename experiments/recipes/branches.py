"""Networks with branches: DSN, DSL and DHM on CIFAR-100 and ImageNet, as released with DHM (Li and Chen 2020).

    local-learning train dhm_cifar100_resnet110 data.root=DIR
    local-learning train dhm_imagenet_resnet50 data.root=DIR

Names are ARM_DATA_NETWORK. Arms: unbranched, the network alone; dsn, pooled linear classifiers at the ends of the
stages, whose weight falls linearly to 0; dsl, the two rich branches of the paper with their label losses alone; dhm,
all six directions of mimicry besides, as the released code trains (and as DKS does); dhm_sampled (CIFAR-100), each
direction kept with probability 0.665, the rule that the released code has commented out. Names that end in _tiny are
for tests: 32 synthetic images of 32x32 pixels, 2 batches, and a small network.

Budget: those of the released code (Table in TRAINING.md): SGD with momentum 0.9 and no Nesterov, learning rate 0.1.


    CIFAR-100: crops out of 4 padded pixels of 0, mirroring
    ResNet-32, -110      batch 128, 164 epochs, times 0.1 at epochs 81 and 122, weight decay 1e-4
    WRN-28-10            batch 128, 200 epochs, times 0.2 at epochs 60, 120 and 160, weight decay 5e-4
    DenseNet-BC-100-12   batch 64, 300 epochs, times 0.1 at epochs 150 and 225, weight decay 1e-4
    ImageNet: random resized crops of 224, mirroring; ResNets: batch 256, 90 epochs, times 0.1 at 31 and 61, 1e-4

The released code gives no budget for ResNet-32; it has that of ResNet-110 here. The whole batch is on one device.

Published errors in % (README of DHM; baselines from the README of DKS, and not comparable with the others).
We have measured none of it here; what we did measure is in docs/results/branches.md.

    ImageNet, top-1 / top-5    baseline         DSL               DHM
    ResNet-18                  31.06 / 11.13    29.728 / 10.450   28.714 / 9.940
    ResNet-50                  25.47 / 7.58     23.874 / 7.074    23.430 / 6.764
    ResNet-101                                  22.260 / 6.128    21.348 / 5.684
    ResNet-152                 22.45 / 5.94     21.602 / 5.824    20.810 / 5.396
    CIFAR-100, WRN-28-10       18.72 +- 0.24    DKS: 17.24 +- 0.22 (5 runs, DKS's own recipe)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import DHM, DSL, DSN, SGD, Augmentation, Backbone, Data, EndToEnd, Recipe, Step

ARMS: dict[str, Any] = {"unbranched": EndToEnd(), "dsn": DSN(), "dsl": DSL(), "dhm": DHM()}
SAMPLED = {"dhm_sampled": DHM(directions="sampled")}

# Network, batch, epochs, milestones and factor of the learning rate, weight decay. The released ResNets' shortcuts
# average 2x2 pixels where the resolution falls.
CIFAR100: dict[str, tuple[Backbone, int, int, tuple[int, ...], float, float]] = {
    "resnet32": (Backbone(name="resnet32", shortcut="pooled_identity"), 128, 164, (81, 122), 0.1, 1e-4),
    "resnet110": (Backbone(name="resnet110", shortcut="pooled_identity"), 128, 164, (81, 122), 0.1, 1e-4),
    "wrn_28_10": (Backbone(name="wrn_28_10"), 128, 200, (60, 120, 160), 0.2, 5e-4),
    "densenet_bc_100_12": (Backbone(name="densenet_bc_100_12"), 64, 300, (150, 225), 0.1, 1e-4),
}
IMAGENET = ("resnet18", "resnet50", "resnet101", "resnet152")


def cifar100(name: str, method: Any, network: str) -> Recipe:
    """CIFAR-100 as in the released code."""
    backbone, batch_size, epochs, milestones, factor, weight_decay = CIFAR100[network]
    return Recipe(
        name=name,
        method=method,
        backbone=backbone,
        data=Data(
            name="cifar100",
            batch_size=batch_size,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            augmentation=Augmentation(crop_padding=4, padding_mode="zeros", flip=True),
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=weight_decay),
        schedule=Step(milestones=milestones, factor=factor),
        epochs=epochs,
    )


def imagenet(name: str, method: Any, network: str) -> Recipe:
    """ImageNet as in the released code, but with the learning rate that its command lines mean."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name=network),
        data=Data(
            name="folder",
            batch_size=256,
            image_size=224,
            resize_size=256,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation=Augmentation(random_resized_crop=True, flip=True),
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4),
        schedule=Step(milestones=(31, 61), factor=0.1),
        epochs=90,
    )


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, optimizer, schedule and augmentation stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data, name="synthetic", num_classes=10, image_size=32, resize_size=None, batch_size=16
    )
    data = dataclasses.replace(data, synthetic_images=32)
    backbone = dataclasses.replace(recipe.backbone, name="resnet8", widths=(4, 8, 8), shortcut="pooled_identity")
    return dataclasses.replace(recipe, name=name, data=data, backbone=backbone, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[[], Recipe]] = {}
    for make, data, networks, arms in (
        (cifar100, "cifar100", tuple(CIFAR100), ARMS | SAMPLED),
        (imagenet, "imagenet", IMAGENET, ARMS),
    ):
        for network in networks:
            for arm, method in arms.items():
                name = f"{arm}_{data}_{network}"
                found[name] = partial(make, name, method, network)
    shrunk = [f"{arm}_cifar100_resnet32" for arm in (*ARMS, *SAMPLED)]
    return found | {f"{name}_tiny": partial(tiny, f"{name}_tiny", found[name]) for name in shrunk}


RECIPES = _all()
