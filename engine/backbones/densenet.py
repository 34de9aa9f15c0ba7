"""DenseNets for small images (Huang et al. 2017, arXiv 1608.06993), plain and BC, as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.backbones.initial_weights import initialise
from engine.backbones.registry import family, whole_blocks
from engine.backbones.stages import StageEnd

_LISTED = {
    f"densenet_{depth}_{growth}": f"DenseNet of {depth - 4} layers in 3 stages, each adding {growth} channels"
    for depth, growth in ((40, 12), (100, 12), (100, 24))
} | {
    f"densenet_bc_{depth}_{growth}": f"DenseNet-BC of {(depth - 4) // 2} bottleneck layers in 3 stages, each adding "
    f"{growth} channels"
    for depth, growth in ((100, 12), (190, 40), (250, 24))
}
_PLAIN_STEM = 16


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution; the new channels are appended to the input."""

    widening: int = 3
    """By what a branch near the network's top multiplies the channels of a layer (released code of DHM)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C + growth, H, W]: whatever a cut here has to pass on is in this one tensor."""
        out = self.conv1(functional.relu(self.norm1(features), inplace=True))
        return torch.cat((features, out), dim=1)


class BottleneckLayer(nn.Module):
    """Twice batch norm, ReLU, convolution (1x1, then 3x3); the new channels are appended to the input."""

    widening: int = 3
    """As in `DenseLayer`."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C + growth, H, W]."""
        out = self.conv1(functional.relu(self.norm1(features), inplace=True))
        out = self.conv2(functional.relu(self.norm2(out), inplace=True))
        return torch.cat((features, out), dim=1)


class Compression(nn.Conv2d):
    """1x1 convolution to a share of the channels that it gets, from [B, C, H, W] to [B, C // divisor, H, W]."""

    def __init__(self, channels: int, divisor: int) -> None:
        super().__init__(channels, channels // divisor, 1, bias=False)
        self.divisor = divisor


def transition(channels: int, divisor: int) -> nn.Module:
    """Return batch norm, ReLU, 1x1 convolution, pooling, from [B, C, H, W] to [B, C // divisor, H // 2, W // 2]."""
    return StageEnd(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=Compression(channels, divisor),
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


@family("DenseNet or DenseNet-BC", _LISTED, plain_prefix, pattern=r"densenet_(bc_)?\d+_[1-9]\d*")
def build_densenet(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Build three stages of n layers that add k channels each, between them transitions (section 3 of the paper).

    ``densenet_40_12``: depth 3n + 4 = 40, growth rate k = 12, a convolution to 16 channels before, no compression.
    ``densenet_bc_100_12``: depth 6n + 4 = 100, for a layer has two convolutions; 2k channels before; compression 1/2.
    """
    compressed = name.startswith("densenet_bc_")
    depth, growth = (int(part) for part in name.split("_")[-2:])
    count = whole_blocks(name, depth, layers=6 if compressed else 3, others=4)
    layer = BottleneckLayer if compressed else DenseLayer
    divisor = 2 if compressed else 1
    channels = 2 * growth if compressed else _PLAIN_STEM
    stem = nn.Sequential(OrderedDict(conv0=nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False)))
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for stage in (1, 2, 3):
        for index in range(count):
            children[f"dense{stage}_{index}"] = layer(channels, growth)
            channels += growth
        if stage < 3:
            children[f"transition{stage}"] = transition(channels, divisor)
            channels //= divisor
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
