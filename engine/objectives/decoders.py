"""Which auxiliary network rebuilds the image from features?

Every function draws initial weights from torch's default generator, so call it inside ``engine.streams.seeded``.
All decoders map features ``[B, *feature_shape]`` to the logits of pixels ``[B, *image_shape]``.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.initialisation import initialise
from engine.objectives.shapes import feature_map, is_large

# Channels that enter the 3x3 convolution at image size, at half of it, and at a quarter or less, as published.
_CHANNELS_BY_HALVINGS = (12, 32, 128)


class BilinearResize(nn.Module):
    """Resize feature maps ``[B, C, h, w]`` to ``[B, C, *size]``, corners aligned."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Return the resized features; the features themselves where the size is right already."""
        if tuple(features.shape[2:]) == self.size:
            return features
        return F.interpolate(features, size=self.size, mode="bilinear", align_corners=True)


def decoder_for(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return the decoder that InfoPro publishes for images of this size: ``imagenet_decoder`` or ``cifar_decoder``.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    if is_large(image_shape):
        return imagenet_decoder(feature_shape, image_shape)
    return cifar_decoder(feature_shape, image_shape)


def cifar_decoder(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int], width: int = 12) -> nn.Sequential:
    """Return InfoPro's decoder for CIFAR, SVHN and STL-10: resize to the image, then two 3x3 convolutions.

    Args:
        feature_shape: ``[C, H, W]``.
        image_shape: ``[C, H, W]`` of the pixels to rebuild.
        width: channels between the two convolutions.

    Raises:
        RecipeError: the features are not a feature map.
    """
    channels, _, _ = feature_map(feature_shape, "the decoder")
    layers = [
        BilinearResize(image_shape[1:]),
        *_convolution(channels, width, kernel_size=3),
        nn.Conv2d(width, image_shape[0], kernel_size=3, padding=1),
    ]
    return initialise(nn.Sequential(*layers))


def imagenet_decoder(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return InfoPro's decoder for ImageNet: a 1x1 convolution, then resize to double and 3x3 convolution in turn.

    For features 28x28 and images 224x224 it is the published one, with 128, 32 and 12 channels. Other sizes get the
    same layers as far as the resolutions agree: fewer for larger features, more of 128 channels for smaller ones, so
    above the features' own resolution never more than 128 channels are kept.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    channels, height, width = feature_map(feature_shape, "the decoder")
    sizes = [image_shape[1:]]
    while sizes[0][0] > 2 * height or sizes[0][1] > 2 * width:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    widths = [
        _CHANNELS_BY_HALVINGS[min(halvings, len(_CHANNELS_BY_HALVINGS) - 1)] for halvings in reversed(range(len(sizes)))
    ]
    layers = _convolution(channels, widths[0], kernel_size=1)
    for size, (inputs, outputs) in zip(sizes, itertools.pairwise(widths), strict=False):
        layers += [BilinearResize(size), *_convolution(inputs, outputs, kernel_size=3)]
    layers += [BilinearResize(sizes[-1]), nn.Conv2d(widths[-1], image_shape[0], kernel_size=3, padding=1)]
    return initialise(nn.Sequential(*layers))


def _convolution(channels: int, outputs: int, kernel_size: int) -> list[nn.Module]:
    padding = kernel_size // 2
    return [
        nn.Conv2d(channels, outputs, kernel_size, padding=padding),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
