"""Parts of ResNets: stem, stages of residual blocks, classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

Shortcut = Callable[[int, int, int], nn.Module]
Children = list[tuple[str, nn.Module]]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, from [B, C, H, W] to [B, width, H / stride, W / stride].

    Parts have torchvision's names and order. Its package is not imported for them, because that takes a second and
    20 MB of every learner.

    Args:
        channels: C.
        width: channels of both convolutions.
        stride: of the first one.
        downsample: the shortcut where the shape changes.
        dilation: of the first one, as in mmsegmentation's networks.
    """

    expansion = 1
    first_of_stage: bool = False
    """Whether this is the first block of its stage, which every sub-network keeps."""
    starts_stage: bool = False
    """Whether branches take it for the start of a stage although it keeps the height: the published one lowers it."""

    def __init__(
        self, channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, width, 3, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output."""
        output = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        return _added(self, output, features)

    @property
    def bypassable(self) -> bool:
        """Whether input and output have the same shape, so that the block can be left out."""
        return self.downsample is None

    @property
    def branch_end(self) -> nn.Module:
        """The module whose output is added to the shortcut."""
        return self.bn2


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 and a shortcut, from [B, C, H, W] to [B, 4 width, H / stride, W / stride].

    As `BasicBlock`; stride and dilation are those of the 3x3 convolution, as in torchvision. ResNeXt's block (Xie et
    al. 2017, arXiv 1611.05431, section 3.3, figure 3c) is a subclass with other ``groups`` and ``base_width``, and so
    has ``width * base_width / 64 * groups`` channels inside.
    """

    expansion = 4
    groups = 1
    """Of the 3x3 convolution: the paper's cardinality."""
    base_width = 64
    """Channels of each group where the width is 64."""
    first_of_stage: bool = False
    """Whether this is the first block of its stage, which every sub-network keeps."""
    starts_stage: bool = False
    """Whether branches take it for the start of a stage although it keeps the height: the published one lowers it."""

    def __init__(
        self, channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None, dilation: int = 1
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        inner = width * self.base_width // 64 * self.groups
        self.conv1 = _convolution(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(inner, inner, 3, stride, dilation, self.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output."""
        output = self.relu(self.bn1(self.conv1(features)))
        output = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(output)))))
        return _added(self, output, features)

    @property
    def bypassable(self) -> bool:
        """Whether input and output have the same shape, so that the block can be left out."""
        return self.downsample is None

    @property
    def branch_end(self) -> nn.Module:
        """The module whose output is added to the shortcut."""
        return self.bn3


def _convolution(
    channels: int, out_channels: int, size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(channels, out_channels, size, stride, padding, dilation, groups, bias=False)


def _added(block: BasicBlock | Bottleneck, output: Tensor, features: Tensor) -> Tensor:
    output += features if block.downsample is None else block.downsample(features)
    added: Tensor = block.relu(output)
    return added


def bypassable(network: nn.Sequential) -> tuple[str, ...]:
    """Return the names of the residual blocks whose input and output have the same shape."""
    return tuple(name for name, child in network.named_children() if getattr(child, "bypassable", False))


def projection(channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a 1x1 convolution with batch norm: the shortcut of option B (He et al. 2016, section 3.3)."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def stem(channels: int, width: int, kernel_size: int, stride: int, pool: bool) -> nn.Module:
    """Return convolution, batch norm, ReLU and, with ``pool``, a 3x3 max-pooling of stride 2."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
    )
    if pool:
        parts["maxpool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.Sequential(parts)


def stages(
    block: type[BasicBlock | Bottleneck],
    channels: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    shortcut: Shortcut,
    dilations: Sequence[int] | None = None,
    last_stride: int = 2,
) -> Children:
    """Return the blocks ``layer1_0``, ``layer1_1``, ... in order.

    The first block of every stage but the first has stride 2, that of the last perhaps another; but of a dilated stage
    stride 1, and half the dilation.

    Args:
        block: what every stage is made of.
        channels: of the first block's input.
        widths: of each stage, before the block's own expansion.
        blocks: how many each stage has.
        shortcut: makes the shortcut of a block whose shape changes, from (channels, out_channels, stride).
        dilations: of each stage; 1 unless given.
        last_stride: of the first block of the last stage.
    """
    children: Children = []
    dilated = dilations or (1,) * len(widths)
    for stage, (width, count, dilation) in enumerate(zip(widths, blocks, dilated, strict=True), start=1):
        for index in range(count):
            first = last_stride if stage == len(widths) else 2
            stride = first if stage > 1 and index == 0 and dilation == 1 else 1
            out_channels = width * block.expansion
            changes = stride != 1 or channels != out_channels
            downsample = shortcut(channels, out_channels, stride) if changes else None
            child = block(channels, width, stride, downsample, max(1, dilation // 2) if index == 0 else dilation)
            child.first_of_stage = index == 0
            child.starts_stage = index == 0 and stage == len(widths) and last_stride == 1
            children.append((f"layer{stage}_{index}", child))
            channels = out_channels
    return children


def classifier(channels: int, num_classes: int) -> nn.Module:
    """Return global average pooling and a linear layer, from [B, C, H, W] to [B, num_classes]."""
    return nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, num_classes))
    )
