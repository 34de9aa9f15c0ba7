"""Adaptation of published networks to small images, other numbers of channels and another dropout."""

from __future__ import annotations

import torch
from torch import nn

from engine.errors import RecipeError

_SMALLEST_IMAGENET_HEIGHT = 128


def is_imagenet_stem(stem: str | None, image_shape: tuple[int, int, int]) -> bool:
    """Return whether the network is the published one, for large images: if asked for, or from 128 pixels of height.

    Args:
        stem: the recipe's ``backbone.stem``, None for the choice by height.
        image_shape: (C, H, W) of one image.

    Raises:
        RecipeError: the stem is one of networks for segmentation only.
    """
    if stem == "deep":
        raise RecipeError(
            "backbone.stem=deep is for networks for segmentation, such as deeplabv3_resnet18: set "
            "backbone.stem=imagenet or backbone.stem=cifar, or leave it out"
        )
    return stem == "imagenet" if stem is not None else image_shape[1] >= _SMALLEST_IMAGENET_HEIGHT


def keep_small_images_large(features: nn.Module) -> None:
    """Give the first two convolutions of stride 2 stride 1 instead; weights stay.

    torchvision's mobile networks halve an image five times, each time in one convolution, so that images of 32x32
    pixels would end at 1x1. Without the first two they end at 4x4, as MobileNetV2's do in its usual form for CIFAR.
    """
    strided = [part for part in features.modules() if isinstance(part, nn.Conv2d) and part.stride != (1, 1)]
    for convolution in strided[:2]:
        convolution.stride = (1, 1)


def take_channels(network: nn.Module, channels: int) -> nn.Conv2d:
    """Let a network's first convolution take images [B, channels, H, W], and return it.

    If that changes its weight, torch's own initialisation draws the new one.
    """
    first = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
    if first.in_channels != channels:
        first.in_channels = channels
        first.weight = nn.Parameter(torch.empty(first.out_channels, channels, *first.kernel_size))
        first.reset_parameters()
    return first


def dropout_layer(probability: float) -> nn.Module:
    """Return dropout, or nothing for probability 0, which would still draw and keep a mask."""
    return nn.Dropout(probability) if probability else nn.Identity()


def set_dropout(classifier: nn.Sequential, probability: float | None) -> None:
    """Replace every dropout layer of a classifier; None keeps the published probability."""
    if probability is None:
        return
    for name, part in classifier.named_children():
        if isinstance(part, nn.Dropout):
            classifier.add_module(name, dropout_layer(probability))
