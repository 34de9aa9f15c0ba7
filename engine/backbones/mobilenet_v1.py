"""MobileNets of version 1 (Howard et al. 2017, arXiv 1704.04861, table 1) as flat sequences."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from engine.backbones import residual
from engine.backbones.adaptation import dropout_layer, is_imagenet_stem
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family
from engine.errors import RecipeError

_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_PLANS = {"three": (1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), "four": (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)}
_LEAST_WIDTH = 8
_LISTED = {
    "mobilenet_v1": "MobileNet of 13 depthwise-separable blocks",
    "mobilenet_v1_075": "MobileNet of 13 depthwise-separable blocks, 0.75 times as wide",
    "mobilenet_v1_050": "MobileNet of 13 depthwise-separable blocks, 0.5 times as wide",
    "mobilenet_v1_025": "MobileNet of 13 depthwise-separable blocks, 0.25 times as wide",
}


class SeparableBlock(nn.Module):
    """A 3x3 convolution of each channel alone and a 1x1 convolution of all, each with batch norm and activation."""

    def __init__(self, channels: int, out_channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activate = functional.relu6 if activation == "relu6" else functional.relu

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, out_channels, H / stride, W / stride]."""
        out = self.activate(self.bn1(self.conv1(features)), inplace=True)
        return self.activate(self.bn2(self.conv2(out)), inplace=True)


@family("MobileNetV1", _LISTED, stage_prefix, pattern=r"mobilenet_v1_(?!000)\d{3}")
def build_mobilenet_v1(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    strides: str | tuple[int, ...] | None = None,
    dropout: float = 0.0,
    activation: str = "relu",
) -> nn.Sequential:
    """Build stem, 13 blocks, pool, linear; ``mobilenet_v1_050`` has half the channels, and at least 8.

    The stem's convolution is 3x3, of stride 1 (cifar) or 2 (imagenet). The blocks halve the image where the channels
    first become 256, 512 and 1024 (plan ``three``, usual with the cifar stem: 32x32 images end at 4x4), and also where
    they first become 128 (plan ``four``, the paper's and usual with the imagenet stem; with the cifar stem 32x32
    images end at 2x2). The plan does not change the number of parameters, but a lot the accuracy on small images.

    Raises:
        RecipeError: strides that are not 13.
    """
    large = is_imagenet_stem(stem, image_shape)
    usual = "four" if large else "three"
    plan = usual if strides is None else strides
    steps = _PLANS[plan] if isinstance(plan, str) else plan
    if len(steps) != len(_WIDTHS) - 1:
        raise RecipeError(
            f"backbone.strides={strides}: found {len(steps)} strides, but {name} has {len(_WIDTHS) - 1} blocks. "
            f"Expected one for each, such as {_PLANS['three']}, or one of: {', '.join(_PLANS)}."
        )
    percent = int(name.removeprefix("mobilenet_v1").removeprefix("_") or 100)
    widths = [max(width * percent // 100, _LEAST_WIDTH) for width in _WIDTHS]
    first = residual.stem(image_shape[0], widths[0], kernel_size=3, stride=2 if large else 1, pool=False)
    if activation == "relu6":
        first.add_module("relu", nn.ReLU6(inplace=True))
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=first)
    for index, ((channels, out_channels), stride) in enumerate(zip(pairwise(widths), steps, strict=True), start=1):
        children[f"block{index}"] = SeparableBlock(channels, out_channels, stride, activation)
    children["classifier"] = nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=dropout_layer(dropout),
            fc=nn.Linear(widths[-1], num_classes),
        )
    )
    network = nn.Sequential(children)
    initialise(network)
    return network
