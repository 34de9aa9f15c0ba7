"""torchvision's ResNets and ResNeXts as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.backbones import residual
from engine.backbones.adaptation import is_imagenet_stem
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family


class _Bottleneck32x4d(residual.Bottleneck):
    groups, base_width = 32, 4


class _Bottleneck32x8d(residual.Bottleneck):
    groups, base_width = 32, 8


_NETWORKS: dict[str, tuple[type[residual.BasicBlock | residual.Bottleneck], tuple[int, ...]]] = {
    "resnet18": (residual.BasicBlock, (2, 2, 2, 2)),
    "resnet34": (residual.BasicBlock, (3, 4, 6, 3)),
    "resnet50": (residual.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (residual.Bottleneck, (3, 4, 23, 3)),
    "resnet152": (residual.Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": (_Bottleneck32x4d, (3, 4, 6, 3)),
    "resnext101_32x8d": (_Bottleneck32x8d, (3, 4, 23, 3)),
}


def _line(block: type[residual.BasicBlock | residual.Bottleneck], blocks: tuple[int, ...]) -> str:
    if issubclass(block, residual.BasicBlock):
        return f"torchvision's ResNet of {sum(blocks)} basic blocks in 4 stages"
    if block.groups == 1:
        return f"torchvision's ResNet of {sum(blocks)} bottleneck blocks in 4 stages"
    return f"torchvision's ResNeXt of {sum(blocks)} bottleneck blocks of {block.groups} groups in 4 stages"


_LISTED = {name: _line(*network) for name, network in _NETWORKS.items()}
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
    block, counts = _NETWORKS[name]
    blocks = residual.stages(block, 64, _WIDTHS, counts, residual.projection, last_stride=last_stride or 2)
    classifier = residual.classifier(_WIDTHS[-1] * block.expansion, num_classes)
    network = nn.Sequential(OrderedDict([("stem", first), *blocks, ("classifier", classifier)]))
    initialise(network)
    return network
