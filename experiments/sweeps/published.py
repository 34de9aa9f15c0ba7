"""Searches on the papers' data sets, around the published settings. They need GPUs and hours.

    local-learning sweep infopro_cifar10_resnet32 --on ray data.root=DIR
    local-learning sweep mkf_cifar100_resnet50 data.root=DIR

We have run none of them.
"""

from __future__ import annotations

from ray import tune

from engine.search import Sweep

SWEEPS = {
    "infopro_cifar10_resnet32": lambda: Sweep(
        name="infopro_cifar10_resnet32",
        recipe="infopro_cifar10_resnet32_k4",
        space={
            "method.num_segments": tune.choice([2, 4, 8]),
            "method.reconstruction_weight": tune.loguniform(0.05, 20.0),
            "method.classification_weight": tune.loguniform(0.05, 5.0),
            "method.head": tune.choice(["softmax", "contrastive"]),
        },
        fields=("method.cuts=balanced_layers",),
        against=("memory_bytes", "images_per_second"),
        searcher="tpe",
        scheduler="asha",
        num_samples=40,
        grace_epochs=10,
    ),
    "infopro_cifar10_resnet32_pbt": lambda: Sweep(
        name="infopro_cifar10_resnet32_pbt",
        recipe="infopro_cifar10_resnet32_k4",
        space={
            "method.reconstruction_weight": tune.loguniform(0.05, 20.0),
            "method.classification_weight": tune.loguniform(0.05, 5.0),
            "optimizer.learning_rate": tune.loguniform(0.05, 2.0),
        },
        scheduler="pbt",
        num_samples=20,
        perturb_every_epochs=8,
    ),
    "mkf_cifar100_resnet50": lambda: Sweep(
        name="mkf_cifar100_resnet50",
        recipe="mkf_cifar100_resnet50",
        space={
            "method.distillation_weight": tune.loguniform(0.25, 8.0),
            "method.averaging_weight": tune.uniform(0.1, 1.0),
            "method.num_groups": tune.choice([2, 3, 4, 5]),
            "method.fraction": tune.choice(["shared_clipped", "exact", "linear_clipped", "none"]),
        },
        searcher="tpe",
        scheduler="asha",
        num_samples=32,
        grace_epochs=20,
    ),
    "dml_cifar100_resnet32": lambda: Sweep(
        name="dml_cifar100_resnet32",
        recipe="dml_cifar100_resnet32_resnet32",
        space={
            "method.peers": tune.choice(["2", "3", "4", "resnet32,wrn_28_10", "resnet32,mobilenet_v1"]),
            "method.temperature": tune.choice([1.0, 2.0, 3.0, 4.0]),
        },
        scheduler="asha",
        num_samples=16,
        grace_epochs=20,
    ),
    "dhm_cifar100_resnet32": lambda: Sweep(
        name="dhm_cifar100_resnet32",
        recipe="dhm_cifar100_resnet32",
        space={"method.weight": tune.loguniform(0.05, 5.0), "method.temperature": tune.choice([1.0, 2.0, 3.0])},
        searcher="tpe",
        num_samples=16,
    ),
}
