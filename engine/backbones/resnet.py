"""torchvision's ResNets as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.backbones import residual
from engine.backbones.adaptation import is_imagenet_stem
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family

_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
_BASIC = frozenset({"resnet18", "resnet34"})
_LISTED = {
    name: f"torchvision's ResNet of {sum(blocks)} {'basic' if name in _BASIC else 'bottleneck'} blocks in 4 stages"
    for name, blocks in _BLOCKS.items()
}
_WIDTHS = (64, 128, 256, 512)


@family("torchvision ResNet", _LISTED, stage_prefix)
def build_resnet(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    last_stride: int | None = None,
) -> nn.Sequential:
    """Build stem, four stages, pool, linear; a cifar stem (3x3, stride 1, no pooling) keeps small images large.

    With ``last_stride`` 1 the last stage keeps the size of its maps.
    """
    channels = image_shape[0]
    large = is_imagenet_stem(stem, image_shape)
    first = residual.stem(channels, 64, kernel_size=7 if large else 3, stride=2 if large else 1, pool=large)
    block = residual.BasicBlock if name in _BASIC else residual.Bottleneck
    blocks = residual.stages(block, 64, _WIDTHS, _BLOCKS[name], residual.projection, last_stride=last_stride or 2)
    classifier = residual.classifier(_WIDTHS[-1] * block.expansion, num_classes)
    network = nn.Sequential(OrderedDict([("stem", first), *blocks, ("classifier", classifier)]))
    initialise(network)
    return network
