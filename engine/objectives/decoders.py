"""Decoders: auxiliary networks that rebuild the image from features.

Every function draws initial weights from torch's default generator, so call it inside ``engine.streams.seeded``.
All decoders map features ``[B, *feature_shape]`` to the logits of pixels ``[B, *image_shape]``. They resize
bilinearly with aligned corners in front of a convolution, which does both at once; see `UpsampledConvolution`.
"""

from __future__ import annotations

from torch import nn

from engine.backbones import Maps, require_layout
from engine.objectives.auxiliary_networks import initialise, is_large
from engine.objectives.convolutions import Convolution, UpsampledConvolution
from engine.objectives.recomputation import RecomputedSequence

# Channels that enter the 3x3 convolution at image size, at half of it, and at a quarter or less, as published.
_CHANNELS_BY_HALVINGS = (12, 32, 128)


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
    maps = require_layout(feature_shape, "the decoder", Maps)
    size = image_shape[1:]
    layers = [
        *_resized_convolution(maps.channels, width, maps.grid, size),
        *_activation(width),
        Convolution(width, image_shape[0], kernel_size=3, padding=1),
    ]
    return initialise(RecomputedSequence(*layers, keeps_convolved=True))


def imagenet_decoder(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return InfoPro's decoder for ImageNet: a 1x1 convolution, then resize to double and 3x3 convolution in turn.

    For features 28x28 and images 224x224 it is the published one, with 128, 32 and 12 channels. Other sizes get the
    same layers as far as the resolutions agree: fewer for larger features, more of 128 channels for smaller ones, so
    above the features' own resolution never more than 128 channels are kept.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    return initialise(_doubling(feature_shape, image_shape))


def dense_decoder(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return InfoPro's decoder for Cityscapes: the layers of ``imagenet_decoder``, which start as torch starts them.

    For features of an eighth of the crop it is the published one. Crops of any size get it, small ones too.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    return _doubling(feature_shape, image_shape)


def _doubling(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> RecomputedSequence:
    maps = require_layout(feature_shape, "the decoder", Maps)
    channels, (height, width) = maps.channels, maps.grid
    sizes = [image_shape[1:]]
    while sizes[0][0] > 2 * height or sizes[0][1] > 2 * width:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    widths = [
        _CHANNELS_BY_HALVINGS[min(halvings, len(_CHANNELS_BY_HALVINGS) - 1)] for halvings in reversed(range(len(sizes)))
    ]
    layers: list[nn.Module] = [Convolution(channels, widths[0], kernel_size=1)]
    resolution = (height, width)
    for size, inputs, outputs in zip(sizes, widths, [*widths[1:], image_shape[0]], strict=True):
        layers += [*_activation(inputs), *_resized_convolution(inputs, outputs, resolution, size)]
        resolution = size
    return RecomputedSequence(*layers, keeps_convolved=True)


def _resized_convolution(
    channels: int, outputs: int, resolution: tuple[int, int], size: tuple[int, int]
) -> list[nn.Module]:
    # In the place of the resizing, so that weights have the names that they have in the published order of layers.
    before = nn.Identity()
    if resolution == size:
        return [before, Convolution(channels, outputs, kernel_size=3, padding=1)]
    return [before, UpsampledConvolution(channels, outputs, resolution, size)]


def _activation(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]
