"""How are DenseNets of type BC (Huang et al. 2017) built as flat sequences?"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.backbones.initial_weights import initialise
from engine.backbones.registry import family, whole_blocks

_LISTED = {"densenet_bc_100_12": "DenseNet-BC of 48 bottleneck layers in 3 stages, each adding 12 channels"}


class DenseLayer(nn.Module):
    """Twice batch norm, ReLU, convolution (1x1, then 3x3); the new channels are appended to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C + growth, H, W]: whatever a cut here has to pass on is in this one tensor."""
        out = self.conv1(functional.relu(self.norm1(features), inplace=True))
        out = self.conv2(functional.relu(self.norm2(out), inplace=True))
        return torch.cat((features, out), dim=1)


def transition(channels: int) -> nn.Module:
    """Return batch norm, ReLU, 1x1 convolution, pooling, from [B, C, H, W] to [B, C // 2, H // 2, W // 2]."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def plain_prefix(child: str) -> str:
    """Return torchvision's prefix for a child: ``dense1_0`` is ``features.denseblock1.denselayer1``."""
    if child == "classifier":
        return ""
    if child == "stem":
        return "features"
    if child.startswith("transition"):
        return f"features.{child}"
    stage, index = child.removeprefix("dense").split("_")
    return f"features.denseblock{stage}.denselayer{int(index) + 1}"


@family("DenseNet-BC", _LISTED, plain_prefix, pattern=r"densenet_bc_\d+_[1-9]\d*")
def build_densenet(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Build depth 6n + 4 and growth rate k: convolution to 2k channels, three stages of n layers, compression 1/2."""
    depth, growth = (int(part) for part in name.removeprefix("densenet_bc_").split("_"))
    count = whole_blocks(name, depth, layers=6, others=4)
    channels = 2 * growth
    stem = nn.Sequential(OrderedDict(conv0=nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False)))
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for stage in (1, 2, 3):
        for index in range(count):
            children[f"dense{stage}_{index}"] = DenseLayer(channels, growth)
            channels += growth
        if stage < 3:
            children[f"transition{stage}"] = transition(channels)
            channels //= 2
    linear = nn.Linear(channels, num_classes)
    # The inner names give the classifier's weights torchvision's names: features.norm5.* and classifier.*
    last = nn.Sequential(OrderedDict(norm5=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
    children["classifier"] = nn.Sequential(
        OrderedDict(features=last, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=linear)
    )
    network = nn.Sequential(children)
    initialise(network)
    nn.init.zeros_(linear.bias)
    return network
