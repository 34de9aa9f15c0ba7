"""CamVid (Brostow et al. 2009) with DeepLabV3 on ResNet-18 at 120 x 90: small enough to try methods out without a GPU.

    local-learning train infopro_camvid_resnet18 data.root=DIR

DIR holds images/{train,val,test} and labels/{train,val,test}: 367, 101 and 233 street pictures, whose label maps have
the values 0 to 10 of the names below, and 255 where there is none. Pictures are made 90 rows high and 120 columns wide.
CamVid is for non-commercial use; the engine ships none of it.

Budget: 8 epochs of 46 steps, batch 8, crops of 72 x 96, from random weights: three to eight minutes on one core. These
settings are ours and no paper's (there is no Table to compare with), and were not searched for. Measured, but for DML:
docs/results/camvid.md. For pictures of 240 x 180 data.image_size=180,240 data.augmentation.crop=120,160 epochs=20,
about seven times the work for each epoch and not measured.

Names are METHOD_camvid_resnet18, with _k4 for four segments; without it K = 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import (
    DGL,
    DML,
    SGD,
    Augmentation,
    Backbone,
    Data,
    EndToEnd,
    Greedy,
    InfoPro,
    Polynomial,
    Ramp,
    Recipe,
)
from engine.recipes.tasks import Segmentation

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")


def camvid(name: str, method: Any) -> Recipe:
    """DeepLabV3 on ResNet-18 with output stride 16."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="deeplabv3_resnet18", output_stride=16),
        task=Segmentation(),
        data=Data(
            name="label_maps",
            class_names=CLASSES,
            image_size=(90, 120),
            batch_size=8,
            evaluation_batch_size=8,
            augmentation=Augmentation(
                crop=(72, 96), scale=(0.5, 2.0), largest_class_share=0.75, photometric_distortion=True, flip=True
            ),
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, nesterov=False, weight_decay=5e-4),
        schedule=Polynomial(power=0.9, minimum=1e-4),
        epochs=8,
    )


def _methods(num_segments: int) -> dict[str, Any]:
    return {
        "greedy": Greedy(num_segments=num_segments),
        "dgl": DGL(num_segments=num_segments),
        "infopro": InfoPro(num_segments=num_segments, reconstruction_weight=Ramp(first=1.5, last=1.5)),
    }


def _all() -> dict[str, Callable[[], Recipe]]:
    methods: dict[str, Any] = {"end_to_end_camvid_resnet18": EndToEnd(), "dml_camvid_resnet18": DML()}
    for count, ending in ((2, ""), (4, "_k4")):
        methods |= {f"{name}_camvid_resnet18{ending}": method for name, method in _methods(count).items()}
    return {name: partial(camvid, name, method) for name, method in methods.items()}


RECIPES = _all()
