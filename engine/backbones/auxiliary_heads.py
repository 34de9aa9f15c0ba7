"""Classifiers that a backbone has in training besides its own."""

from __future__ import annotations

from torch import nn

from engine.backbones.inception_v1 import inception_heads
from engine.backbones.segmentation import fcn_heads, is_for_segmentation
from engine.recipes.backbone import Backbone


def auxiliary_heads(
    settings: Backbone, network: nn.Sequential, num_classes: int, image_shape: tuple[int, int, int]
) -> dict[str, nn.Module]:
    """Return the classifiers that a backbone has in training besides its own, by the child whose output each reads.

    They share nothing with the network, which has no use for them once it is trained.

    Args:
        settings: the recipe's backbone.
        network: what `engine.backbones.build` returned for it.
        num_classes: outputs of each head.
        image_shape: (C, H, W) of one image.

    Returns:
        Nothing unless ``backbone.auxiliary_heads`` is true, which only InceptionV1 and networks for segmentation admit.
        Float32 parameters in training mode, drawn from torch's default generator.
    """
    if not settings.auxiliary_heads:
        return {}
    if is_for_segmentation(settings.name):
        return fcn_heads(settings.name, network, num_classes)
    return inception_heads(network, num_classes, image_shape)
