"""CIFAR-100 cohorts as in Deep Mutual Learning (Zhang, Xiang, Hospedales, Lu 2018), with the controls they need.

    local-learning train dml_cifar100_resnet32_resnet32 data.root=DIR
    local-learning train independent_cifar100_resnet32_resnet32 data.root=DIR
    local-learning train distillation_cifar100_resnet32 data.root=DIR method.teacher=RUN

Names are ARM_cifar100_COHORT. COHORT is one of the six pairs of the paper's Table 2, such as mobilenet_resnet32, or
resnet32_kN for N equal peers. Arms: dml (simultaneous schedule, mean over peers, lambda = 1, T = 1); independent, the
same peers with lambda = 0, which start from the same weights and see the same images; independent_scaled, these with
the learning rate times 1 + lambda and the weight decay over 1 + lambda, which are the steps of a loss times 1 + lambda:
mimicry scales the gradient of the logits by that, but not the decay. Of a cohort's variants only one thing differs from
dml: dml_sequential (Algorithm 1), dml_e (ensemble teacher, mean of probabilities; the same gradient as dml by the
printed formulas), dml_e_logits (mean of logits), dml_sum (the released code's sum over peers); their controls are those
of the cohort, but dml_sum has independent_scaled_sum, with 1 + lambda (K - 1) in the place of 1 + lambda.
distillation_cifar100_resnet32 learns from a finished run of end_to_end_cifar100_wrn_28_10 or
end_to_end_cifar100_mobilenet (Table 4). Semi-supervised, two ResNet-32 and P % of each class labelled: dml_all (labels
where there are some, mimicry on all), dml_labelled (labelled images only), independent and independent_all, each
..._cifar100_labelledP. An epoch of the arms on all images has 100 / P times as many steps: independent_all is what
dml_all is to be compared with at equal steps, independent at equal epochs.
Names that end in _tiny are for tests: 32 synthetic images, 2 batches.

Budget: 200 epochs, batch 64, SGD with Nesterov momentum, learning rate 0.1 divided by 10 every 60 epochs (paper,
section 4.1). The paper does not print its weight decay: 5e-4 is what reproductions use; with 4e-5, TF-slim's default,
the independent baseline is weaker. Report the gain over independent of at least 3 seeds, last epoch.

Published top-1 accuracy in %, single runs (paper, Table 2). We have measured none of it here; what we did measure is
in docs/results/mutual-learning.md. Reproductions of ResNet-32 with 5e-4 find 69.8 to 71.2 independently, and gains from
none (70.98 +- 0.44 against 70.88 +- 0.35, 6 repeats) to 1.2 for two peers.

    network 1    network 2    independent      DML
    ResNet-32    ResNet-32    68.99  68.99     71.19  70.75
    WRN-28-10    ResNet-32    78.69  68.99     78.96  70.73
    MobileNet    ResNet-32    73.65  68.99     76.13  71.10
    MobileNet    MobileNet    73.65  73.65     76.21  76.10
    WRN-28-10    MobileNet    78.69  73.65     80.28  77.39
    WRN-28-10    WRN-28-10    78.69  78.69     80.28  80.08
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import (
    DML,
    SGD,
    Augmentation,
    Backbone,
    Data,
    Distillation,
    EndToEnd,
    Peer,
    Recipe,
    Step,
)

NETWORKS = {"resnet32": "resnet32", "wrn_28_10": "wrn_28_10", "mobilenet": "mobilenet_v1"}
PAIRS = (
    ("resnet32", "resnet32"),
    ("wrn_28_10", "resnet32"),
    ("mobilenet", "resnet32"),
    ("mobilenet", "mobilenet"),
    ("wrn_28_10", "mobilenet"),
    ("wrn_28_10", "wrn_28_10"),
)
SIZES = (3, 4, 5)
LABELLED_PERCENT = (10, 20, 40, 60, 80)
LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4

# What each arm changes of the method, beside the peers.
ARMS: dict[str, dict[str, Any]] = {"dml": {}, "independent": {"weight": 0.0}, "independent_scaled": {"weight": 0.0}}
SCALED_SUM = "independent_scaled_sum"
VARIANTS: dict[str, dict[str, Any]] = {
    "dml_sequential": {"schedule": "sequential"},
    "dml_e": {"target": "mean_probabilities"},
    "dml_e_logits": {"target": "mean_logits"},
    "dml_sum": {"reduction": "sum"},
}


def _recipe(name: str, network: str, method: Any, loss_scale: float = 1.0, **data: Any) -> Recipe:
    # On a loss times s, SGD takes the steps of s times the learning rate with the weight decay over s.
    learning_rate, weight_decay = LEARNING_RATE * loss_scale, WEIGHT_DECAY / loss_scale
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name=NETWORKS[network]),
        data=Data(
            name="cifar100",
            batch_size=64,
            augmentation=Augmentation(crop_padding=4, padding_mode="reflect", flip=True),
            **data,
        ),
        optimizer=SGD(learning_rate=learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay),
        schedule=Step(milestones=(60, 120, 180), factor=0.1),
        epochs=200,
    )


def end_to_end(name: str, network: str) -> Recipe:
    """One network alone: the baseline, and a teacher for distillation."""
    return _recipe(name, network, EndToEnd())


def cohort(name: str, networks: tuple[str, ...], arm: str, **data: Any) -> Recipe:
    """Peers that learn together, or the same peers each for itself."""
    settings = {**ARMS, **VARIANTS, SCALED_SUM: ARMS["independent"]}[arm]
    own = [None if network == networks[0] else Backbone(name=NETWORKS[network]) for network in networks]
    method = DML(peers=tuple(Peer(backbone=backbone) for backbone in own), **settings)
    # The gradient of the logits is p_k - (y + lambda q) / (1 + lambda), times 1 + lambda, which counts each other peer
    # where their losses are added up.
    heard = {"independent_scaled": 1, SCALED_SUM: len(networks) - 1}.get(arm, 0)
    return _recipe(name, networks[0], method, 1 + heard * DML().weight, **data)


def distillation(name: str, network: str) -> Recipe:
    """A frozen network in the place of the first peer (paper, Table 4)."""
    return _recipe(name, network, Distillation())


def tiny(name: str, whole: Callable[[], Recipe]) -> Recipe:
    """Shrink a recipe to seconds; method, optimizer, schedule, augmentation and networks stay what they are."""
    recipe = whole()
    data = dataclasses.replace(
        recipe.data, name="synthetic", num_classes=10, image_size=32, batch_size=16, synthetic_images=32
    )
    return dataclasses.replace(recipe, name=name, data=data, epochs=1)


def _all() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, Callable[..., Recipe]] = {}
    for network in NETWORKS:
        found[f"end_to_end_cifar100_{network}"] = partial(end_to_end, network=network)
    cohorts = {"_".join(pair): pair for pair in PAIRS} | {f"resnet32_k{size}": ("resnet32",) * size for size in SIZES}
    for title, networks in cohorts.items():
        for arm in ARMS:
            found[f"{arm}_cifar100_{title}"] = partial(cohort, networks=networks, arm=arm)
    found["dml_sequential_cifar100_resnet32_resnet32"] = partial(
        cohort, networks=("resnet32", "resnet32"), arm="dml_sequential"
    )
    for size in SIZES:
        for arm in (*VARIANTS, SCALED_SUM):
            found[f"{arm}_cifar100_resnet32_k{size}"] = partial(cohort, networks=("resnet32",) * size, arm=arm)
    found["distillation_cifar100_resnet32"] = partial(distillation, network="resnet32")
    for percent in LABELLED_PERCENT:
        labelled = partial(cohort, networks=("resnet32", "resnet32"), labelled_fraction=percent / 100)
        found[f"dml_all_cifar100_labelled{percent}"] = partial(labelled, arm="dml", unlabelled="use")
        found[f"dml_labelled_cifar100_labelled{percent}"] = partial(labelled, arm="dml", unlabelled="drop")
        for arm in ("independent", "independent_scaled"):
            found[f"{arm}_cifar100_labelled{percent}"] = partial(labelled, arm=arm, unlabelled="drop")
        found[f"independent_all_cifar100_labelled{percent}"] = partial(labelled, arm="independent", unlabelled="use")
    named: dict[str, Callable[[], Recipe]] = {name: partial(make, name) for name, make in found.items()}
    return named | {f"{name}_tiny": partial(tiny, f"{name}_tiny", named[name]) for name in _SHRUNK}


_SHRUNK = ("dml_cifar100_resnet32_resnet32", "dml_sequential_cifar100_resnet32_k3", "dml_cifar100_mobilenet_resnet32")

RECIPES = _all()
