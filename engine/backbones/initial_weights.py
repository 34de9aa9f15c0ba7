"""Initial weights of a new network's convolutions and normalisations."""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draw every convolution from N(0, sqrt(2 / (kernel height * kernel width * output channels))).

    This is He's initialisation by fan-out (He et al. 2015, section 2.2, the backward case), which torchvision and
    InfoPro use. Batch norms get weight 1 and bias 0; linear layers keep what torch gave them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
