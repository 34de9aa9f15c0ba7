"""Cityscapes with DeepLabV3 on ResNet-101 as in InfoPro (Wang et al. 2021, section 4.4), K = 2.

    local-learning train infopro_cityscapes_resnet101 data.root=DIR \\
        backbone.weights=FILE backbone.weights_without=classifier

FILE holds the ImageNet weights of mmsegmentation's resnet101_v1c, from which the authors start; without it the network
starts from random weights, and their figures cannot be expected.

Budget: 40,000 steps (here the nearest whole number of epochs, of which the engine keeps the last, smaller batch),
4 GPUs x 2 images in the authors' code. Published mIoU on val in %, and GB of one GPU (paper, Table 5: two RTX 3090);
"scales" are 0.5 to 1.75. We have measured none of it; what we did measure is in docs/results/index.md.

    method                            one scale   scales   scales and flip   GB
    end-to-end, 512 x 1024              79.12      79.81       80.02        19.43
    DGL                                 78.15      79.40       79.56
    InfoPro*                            79.37      80.53       80.54        12.01
    InfoPro*, batch 12                  79.99      81.09       81.20        16.62
    InfoPro*, 640 x 1280                80.25      81.33       81.42        17.00

As released: poly schedule per step with a floor, scale 0.5 to 2, crop with the 75 % rule, mirror, photometric
distortion; the final heads' cross-entropy is a mean over all pixels, the local head's over the labelled ones; the cut
is after block 13 of the third stage, and the auxiliary head (weight 0.4) belongs to the second segment.

Not as released. Gradients of a segment are those of its whole batch here; in the authors' code the first segment's
backward pass lies inside the forward of a data-parallel model, and its gradients are probably never averaged over the
GPUs. The head of DGL is ours: of theirs for segmentation nothing is published. Pictures that become smaller are resized
with antialiasing, and the hue goes round in 256 steps instead of 180.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from engine.recipes import DGL, SGD, Augmentation, Backbone, Data, EndToEnd, InfoPro, Polynomial, Ramp, Recipe
from engine.recipes.tasks import Segmentation

_EPOCHS = {8: 108, 12: 161}


def cityscapes(
    name: str,
    method: Any,
    batch_size: int = 8,
    crop: tuple[int, int] = (512, 1024),
    learning_rate: float = 0.01,
) -> Recipe:
    """One of the published settings."""
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="deeplabv3_resnet101", auxiliary_heads=True),
        task=Segmentation(final_mean="all", local_mean="labelled"),
        data=Data(
            name="cityscapes",
            batch_size=batch_size,
            evaluation_batch_size=1,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation=Augmentation(
                crop=crop, scale=(0.5, 2.0), largest_class_share=0.75, photometric_distortion=True, flip=True
            ),
        ),
        optimizer=SGD(learning_rate=learning_rate, momentum=0.9, nesterov=False, weight_decay=5e-4),
        schedule=Polynomial(power=0.9, minimum=1e-4),
        epochs=_EPOCHS[batch_size],
    )


def infopro(reconstruction: float, classification: float) -> InfoPro:
    """Two segments of equal memory, with the weights of the reconstruction and of the local head."""
    return InfoPro(
        num_segments=2,
        cuts="published_memory",
        reconstruction_weight=Ramp(first=reconstruction, last=reconstruction),
        classification_weight=Ramp(first=classification, last=classification),
    )


_MADE: dict[str, Callable[[str], Recipe]] = {
    "end_to_end_cityscapes_resnet101": partial(cityscapes, method=EndToEnd()),
    "dgl_cityscapes_resnet101": partial(cityscapes, method=DGL(num_segments=2, cuts="published_memory")),
    "infopro_cityscapes_resnet101": partial(cityscapes, method=infopro(1.5, 1.0)),
    "infopro_cityscapes_resnet101_batch12": partial(
        cityscapes, method=infopro(1.0, 0.1), batch_size=12, learning_rate=0.015
    ),
    "infopro_cityscapes_resnet101_640x1280": partial(
        cityscapes, method=infopro(2.0, 1.0), crop=(640, 1280), learning_rate=0.015
    ),
}

RECIPES: dict[str, Callable[[], Recipe]] = {name: partial(make, name) for name, make in _MADE.items()}
