"""Studies of published recipes at a budget that a CPU can pay: nobody is near to fitting the training images.

The recipes are the shipped ones of CIFAR-10 and CIFAR-100 with fewer images and epochs and, but for CIFAR-10, a narrow
ResNet-20; hyper-parameters that count epochs are scaled to the budget. Arms of a seed start from the same weights and
see the same images in the same order.
"""

from __future__ import annotations

from experiments.studies import fraction_loss, gradient_agreement, learning_curves, peers
from experiments.studies.study import Arm, Study

_NARROW = ("backbone.name=resnet20", "backbone.widths=8,16,32")
_COSINE = ("schedule.kind=cosine", "schedule.interval=step")
_SHORT = (
    "data.name=parquet",
    "data.train_limit=10000",
    *_NARROW,
    "epochs=12",
    "numerics.channels_last=true",
    "plan.executor=process",
)
# Of what is left a tenth is held out, as `local-learning compare` does.
_SMALL = ("data.image_size=16", "data.validation_fraction=0.1", "data.augmentation.crop_padding=2")
_MKF = ("method.measure_fraction_every=10",)
_BRANCHES = ("method.measure_gradients_every=25",)


def _sub_networks(arm: str, *changes: str) -> Arm:
    return Arm(f"{arm}_cifar100_resnet50", changes)


CIFAR10 = Study(
    name="cifar10",
    about="ResNet-32 on 5,000 images of CIFAR-10 (2,000 for the test), cut into four as published, 6 epochs, batch 64.",
    arms={
        "end-to-end": Arm("end_to_end_cifar10_resnet32"),
        "greedy, K = 4": Arm("greedy_cifar10_resnet32_k4"),
        "DGL, K = 4": Arm("dgl_cifar10_resnet32_k4"),
        "InfoPro softmax, K = 4": Arm("infopro_softmax_cifar10_resnet32_k4"),
        "InfoPro contrast, K = 4": Arm("infopro_cifar10_resnet32_k4"),
    },
    budget=(
        "data.train_limit=5000",
        "data.test_limit=2000",
        "data.batch_size=64",
        "optimizer.learning_rate=0.1",
        "epochs=6",
        "schedule.interval=step",
        "schedule.warmup_epochs=0",
        "numerics.channels_last=true",
        "plan.executor=process",
    ),
    seeds=(0, 1, 2),
    needs_images=True,
    further=learning_curves.parts,
)

MUTUAL_LEARNING = Study(
    name="mutual_learning",
    about="Two ResNet-20 of widths 8, 16, 32 on 10,000 images of 100 classes, 32 x 32, 12 epochs, batch 64.",
    arms={arm: Arm(f"{arm}_cifar100_resnet32_resnet32") for arm in ("independent", "independent_scaled", "dml")},
    budget=(*_SHORT, *_COSINE, "plan.evaluate_every_epochs=3"),
    seeds=(0, 1, 2),
    needs_images=True,
    further=peers.parts,
)

SUB_NETWORKS = Study(
    name="sub_networks",
    about="ResNet-20 of widths 8, 16, 32 on 10,000 images of 100 classes, shrunk to 16 x 16, 12 epochs, batch 64.",
    arms={
        "baseline": _sub_networks("baseline"),
        "stochastic depth": _sub_networks("stochastic_depth"),
        "ST": _sub_networks("st"),
        "GKT": _sub_networks("gkt"),
        "MKF, keep": _sub_networks("mkf", "method.fraction=keep", *_MKF),
        "MKF, none": _sub_networks("mkf", "method.fraction=none", *_MKF),
        "MKF, linear (OPT2 as printed)": _sub_networks("mkf", "method.fraction=linear", *_MKF),
        "MKF, linear_clipped": _sub_networks("mkf", "method.fraction=linear_clipped", *_MKF),
        "MKF, linear_clipped_heavy": _sub_networks("mkf", "method.fraction=linear_clipped_heavy", *_MKF),
        "MKF, shared": _sub_networks("mkf", "method.fraction=shared", *_MKF),
        "MKF, shared_clipped (the default)": _sub_networks("mkf", "method.fraction=shared_clipped", *_MKF),
        fraction_loss.MEASURED: _sub_networks("mkf", "method.fraction=exact", *_MKF),
        "DataMix": _sub_networks("data_mix"),
        "label smoothing": _sub_networks("label_smoothing"),
        "Mixup": _sub_networks("mixup"),
        "CutMix": _sub_networks("cutmix"),
        "ONE": _sub_networks("one", "method.ramp_epochs=3"),
        "CS-KD": _sub_networks("cs_kd"),
        "PS-KD": _sub_networks("ps_kd"),
        "LWR": _sub_networks("lwr", "method.interval=2", "method.horizon=14"),
        "DLB": _sub_networks("dlb"),
    },
    budget=(*_SHORT, *_SMALL, "data.augmentation.color_jitter=0", "plan.evaluate_every_epochs=12"),
    seeds=(0, 1, 2),
    needs_images=True,
    further=fraction_loss.parts,
)

BRANCHES = Study(
    name="branches",
    about="ResNet-20 of widths 8, 16, 32 on 10,000 images of 100 classes, shrunk to 16 x 16, 12 epochs, batch 64.",
    arms={
        "unbranched": Arm("unbranched_cifar100_resnet32"),
        "DSN": Arm("dsn_cifar100_resnet32", _BRANCHES),
        "DSL": Arm("dsl_cifar100_resnet32", _BRANCHES),
        "DHM, all directions (as released; DKS)": Arm("dhm_cifar100_resnet32", _BRANCHES),
        "DHM, directions sampled": Arm("dhm_sampled_cifar100_resnet32", _BRANCHES),
    },
    budget=(
        *_SHORT,
        *_SMALL,
        *_COSINE,
        "data.augmentation.color_jitter=0",
        "data.augmentation.padding_mode=reflect",
        "data.batch_size=64",
        "optimizer.learning_rate=0.05",
        "plan.evaluate_every_epochs=12",
    ),
    seeds=(0, 1, 2),
    needs_images=True,
    further=gradient_agreement.parts,
)
