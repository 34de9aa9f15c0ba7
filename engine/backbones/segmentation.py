"""Networks that give logits at each position: a dilated ResNet, and the head of FCN or DeepLabV3 as its last child.

As in InfoPro's code for Cityscapes (Wang et al. 2021), which is mmsegmentation 0.10. Names of weights are those of its
checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from engine.backbones import residual
from engine.backbones.initial_weights import initialise
from engine.backbones.registry import family
from engine.errors import RecipeError

_RESNETS: dict[str, tuple[type[residual.BasicBlock | residual.Bottleneck], tuple[int, ...]]] = {
    "resnet18": (residual.BasicBlock, (2, 2, 2, 2)),
    "resnet50": (residual.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (residual.Bottleneck, (3, 4, 23, 3)),
}
_WIDTHS = (64, 128, 256, 512)
_DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}
_ASPP = (12, 24, 36)
_DROPOUT = 0.1
_HEAD = "head"
_OTHER_CLASSIFIERS = ("fc.", "auxiliary_head.")
_LISTED = {
    f"{head}_{name}": f"{words} on a dilated ResNet of {sum(blocks)} blocks, for segmentation"
    for head, words in (("deeplabv3", "DeepLabV3"), ("fcn", "FCN"))
    for name, (_, blocks) in _RESNETS.items()
}


def segmentation_prefix(child: str) -> str:
    """Return the prefix of a child's weights in mmsegmentation, without that of the backbone."""
    return {"stem": "", _HEAD: "decode_head"}.get(child, child.replace("_", "."))


@family("network for segmentation", _LISTED, segmentation_prefix)
def build_segmentation(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    output_stride: int | None = None,
    auxiliary_heads: bool | None = None,
) -> nn.Sequential:
    """Build stem, four stages, and a head that gives logits ``[B, num_classes, h, w]``.

    Args:
        name: DeepLabV3 or FCN, and the ResNet.
        num_classes: of each position.
        image_shape: (C, H, W) of one image.
        stem: ``deep``, three 3x3 convolutions, of which the first has stride 2, and max-pooling (ResNet-C of He et al.
            2019); or ``imagenet``, torchvision's 7x7 convolution and max-pooling.
        output_stride: pixels of the image for each position of the last features, in a row; 8 unless given. In
            dilated stages the first block has half the dilation, as in mmsegmentation.
        auxiliary_heads: changes nothing here, for the heads are no part of the network: see `fcn_heads`.

    Raises:
        RecipeError: the stem keeps small images large, which networks for segmentation have no use for.
    """
    if stem == "cifar":
        raise RecipeError(
            f"backbone.stem=cifar: {name} lowers the resolution as far as backbone.output_stride says: set "
            "backbone.stem=deep or backbone.stem=imagenet, whose resolution backbone.output_stride (8 unless given) "
            "keeps high"
        )
    head, _, resnet = name.partition("_")
    block, blocks = _RESNETS[resnet]
    first = residual.stem(image_shape[0], 64, kernel_size=7, stride=2, pool=True)
    if stem != "imagenet":
        first = _deep_stem(image_shape[0], 64)
    stages = residual.stages(block, 64, _WIDTHS, blocks, residual.projection, dilations=_DILATIONS[output_stride or 8])
    channels = _WIDTHS[-1] * block.expansion
    last = DeepLabHead(channels, num_classes) if head == "deeplabv3" else FCNHead(channels, num_classes)
    network = nn.Sequential(OrderedDict([("stem", first), *stages, (_HEAD, last)]))
    initialise(network)
    last.start_evenly()
    return network


def is_for_segmentation(name: str) -> bool:
    """Return whether a backbone's name is that of a network of this file."""
    return name in _LISTED


def needs_two_images(name: str) -> bool:
    """Return whether a network normalises the mean of all positions over the batch, which takes two images at least."""
    return name in _LISTED and name.startswith("deeplabv3")


def of_segmentation(state: dict[str, Tensor], without: str | None) -> dict[str, Tensor]:
    """Return weights of torchvision's ResNets, or of mmsegmentation's (v1c), under the names of a network of this file.

    Args:
        state: tensors by the names in the file; ``backbone.`` in front of a name, as whole networks of mmsegmentation
            have it, is taken off.
        without: ``classifier`` to leave out the classifier for whole images, ``fc``, of a body that was trained on
            ImageNet, and the auxiliary head, ``auxiliary_head``, of a whole network.
    """
    found = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    # Where two names become one, neither may win in silence.
    if len(found) < len(state):
        return state
    if without is None:
        return found
    return {name: tensor for name, tensor in found.items() if not name.startswith(_OTHER_CLASSIFIERS)}


def fcn_heads(name: str, network: nn.Sequential, num_classes: int) -> dict[str, nn.Module]:
    """Return the FCN head behind the third stage, by the name of the block whose output it reads.

    In mmsegmentation it helps in training, with a weight of 0.4, and is not deployed. Float32 parameters in training
    mode, drawn from torch's default generator.

    Args:
        name: of the backbone.
        network: what `build_segmentation` returned for it.
        num_classes: of each position.
    """
    block, _ = _RESNETS[name.partition("_")[2]]
    last = [child for child in network._modules if child.startswith("layer3_")][-1]
    head = FCNHead(_WIDTHS[2] * block.expansion, num_classes)
    initialise(head)
    head.start_evenly()
    return {last: head}


class _Head(nn.Module):
    """What both heads end with: dropout of whole channels, then a 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(_DROPOUT)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)

    def start_evenly(self) -> None:
        """Draw the last convolution from N(0, 0.01), with bias 0, as mmsegmentation does."""
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None
        nn.init.zeros_(self.conv_seg.bias)

    def classified(self, features: Tensor) -> Tensor:
        """Return the logits of the head's last features."""
        logits: Tensor = self.conv_seg(self.dropout(features))
        return logits


class FCNHead(_Head):
    """A 3x3 convolution to a quarter of the channels, then a classifier at each position, ``[B, classes, h, w]``.

    Long, Shelhamer, Darrell 2015, in the form of mmsegmentation.

    Args:
        channels: of the features.
        num_classes: of each position.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels // 4, num_classes)
        self.convs = nn.Sequential(_normed(channels, channels // 4, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[B, classes, h, w]`` of features ``[B, C, h, w]``."""
        return self.classified(self.convs(features))


class DeepLabHead(_Head):
    """Atrous spatial pyramid pooling, then a classifier at each position (Chen et al. 2017, DeepLabV3).

    Five branches of a quarter of the channels each: the mean of all positions, a 1x1 convolution, and 3x3 ones of
    dilation 12, 24 and 36; all side by side go through a 3x3 convolution.

    Args:
        channels: of the features.
        num_classes: of each position.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        width = channels // 4
        super().__init__(width, num_classes)
        self.image_pool = nn.Sequential(_MeanPosition(), _normed(channels, width, 1))
        self.aspp_modules = nn.ModuleList(
            [_normed(channels, width, 1), *(_normed(channels, width, 3, dilation) for dilation in _ASPP)]
        )
        self.bottleneck = _normed((len(_ASPP) + 2) * width, width, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[B, classes, h, w]`` of features ``[B, C, h, w]``."""
        # The mean is the same at each position, which is what bilinear enlarging makes of it.
        pooled = self.image_pool(features).expand(-1, -1, *features.shape[2:])
        branches = [pooled, *(branch(features) for branch in self.aspp_modules)]
        return self.classified(self.bottleneck(torch.cat(branches, dim=1)))


class _MeanPosition(nn.Module):
    """The mean of all positions, ``[B, C, 1, 1]``."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean."""
        return features.mean(dim=(2, 3), keepdim=True)


def _deep_stem(channels: int, width: int) -> nn.Sequential:
    half = width // 2
    parts: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, half, 2), (half, half, 1), (half, width, 1)):
        parts += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(stem=nn.Sequential(*parts), maxpool=maxpool))


def _normed(channels: int, outputs: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(channels, outputs, size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs), activate=nn.ReLU(inplace=True)))
