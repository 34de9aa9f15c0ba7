"""VGG networks with batch norm (Simonyan and Zisserman 2015, arXiv 1409.1556) as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.backbones.adaptation import dropout_layer, is_imagenet_stem
from engine.backbones.initial_weights import initialise
from engine.backbones.registry import family
from engine.backbones.stages import StageEnd

_CONVOLUTIONS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}
_WIDTHS = (64, 128, 256, 512, 512)
_LISTED = {name: f"VGG of {sum(counts)} convolutions with batch norm" for name, counts in _CONVOLUTIONS.items()}


def plain_prefix(child: str) -> str:
    """Return torchvision's prefix for a child: all convolutions are in one list, ``features``."""
    return "" if child == "classifier" else "features"


@family("VGG", _LISTED, plain_prefix)
def build_vgg(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    dropout: float | None = None,
) -> nn.Sequential:
    """Build convolutions ``conv1_1`` to ``conv5_n``, the last of each stage with 2x2 pooling, and a classifier.

    The convolutions are the same for all images, and halve them five times: images need at least 32 pixels. What
    ``stem`` decides is the classifier. Imagenet: torchvision's, pooling to 7x7 and three linear layers, with dropout
    of 0.5 between them unless given. Cifar: pooling to 1x1 and one linear layer, after dropout if given, the usual
    form for 32x32 images, which end at 1x1. Initial weights are drawn as in torchvision.
    """
    channels = image_shape[0]
    children: OrderedDict[str, nn.Module] = OrderedDict()
    place = 0
    for stage, (width, count) in enumerate(zip(_WIDTHS, _CONVOLUTIONS[name], strict=True), start=1):
        for index in range(1, count + 1):
            parts = [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if index == count:
                parts.append(nn.MaxPool2d(2))
            # The inner names are torchvision's: places in its one list.
            named = OrderedDict((str(number), part) for number, part in enumerate(parts, start=place))
            children[f"conv{stage}_{index}"] = (StageEnd if index == count else nn.Sequential)(named)
            place += len(parts)
            channels = width
    large = is_imagenet_stem(stem, image_shape)
    children["classifier"] = (
        _large_classifier(channels, num_classes, 0.5 if dropout is None else dropout)
        if large
        else _small_classifier(channels, num_classes, dropout or 0.0)
    )
    network = nn.Sequential(children)
    initialise(network)
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.01)
        if isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            nn.init.zeros_(part.bias)
    return network


def _large_classifier(channels: int, num_classes: int, dropout: float) -> nn.Module:
    layers = nn.Sequential(
        nn.Linear(channels * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        dropout_layer(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        dropout_layer(dropout),
        nn.Linear(4096, num_classes),
    )
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(7), flatten=nn.Flatten(), classifier=layers))


def _small_classifier(channels: int, num_classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=dropout_layer(dropout),
            classifier=nn.Linear(channels, num_classes),
        )
    )
