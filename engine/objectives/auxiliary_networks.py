"""Common parts of heads and decoders: initial weights, and the image size from which ImageNet's are used."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def initialise(module: _Module) -> _Module:
    """Draw every convolution's weight from N(0, 2 / (kernel height * kernel width * output channels)).

    He initialisation by fan-out, as InfoPro draws bodies, heads and decoders alike; DGL and PredSim leave what torch
    draws. Biases and linear layers keep torch's default, batch normalisation starts at weight 1 and bias 0. Draws from
    torch's default generator.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (height * width * layer.out_channels)))
    return module


# From this image height on the networks published for ImageNet are used: the CIFAR decoder works with all channels
# of the features at image resolution, which costs more than the backbone itself at 224.
LARGE_IMAGE_HEIGHT = 128


def is_large(image_shape: tuple[int, int, int]) -> bool:
    """Return whether images ``(C, H, W)`` call for the auxiliary networks published for ImageNet."""
    return image_shape[1] >= LARGE_IMAGE_HEIGHT
