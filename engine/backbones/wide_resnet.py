"""Wide ResNets (Zagoruyko and Komodakis 2016) as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family, whole_blocks

_LISTED = {
    f"wrn_{depth}_{factor}": f"wide ResNet of {(depth - 4) // 2} pre-activation blocks, {factor} times as wide"
    for depth, factor in ((16, 2), (16, 8), (28, 10), (40, 2))
}


class WideBlock(nn.Module):
    """Pre-activation block: twice batch norm, ReLU, 3x3 convolution; where the shape changes, the shortcut is a
    1x1 convolution of the activated input.
    """

    first_of_stage: bool = False
    """Whether this is the first block of its stage, which every sub-network keeps."""

    def __init__(self, channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bypassable: bool = stride == 1 and channels == out_channels
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        # Dropout of probability 0 would still draw and keep a mask.
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = None if self.bypassable else nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)

    @property
    def branch_end(self) -> nn.Module:
        """The module whose output is added to the shortcut."""
        return self.conv2

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, out_channels, H / stride, W / stride]."""
        activated = functional.relu(self.bn1(features), inplace=True)
        out = functional.relu(self.bn2(self.conv1(activated)), inplace=True)
        out = self.conv2(self.dropout(out))
        out += features if self.shortcut is None else self.shortcut(activated)
        return out


@family("wide ResNet", _LISTED, stage_prefix, pattern=r"wrn_\d+_[1-9]\d*")
def build_wide_resnet(
    name: str, num_classes: int, image_shape: tuple[int, int, int], *, dropout: float = 0.0
) -> nn.Sequential:
    """Build depth 6n + 4 and width factor k: convolution, three stages of n blocks with 16k, 32k, 64k channels."""
    depth, factor = (int(part) for part in name.removeprefix("wrn_").split("_"))
    count = whole_blocks(name, depth, layers=6, others=4)
    channels = 16
    stem = nn.Sequential(OrderedDict(conv1=nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False)))
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for stage in range(3):
        for index in range(count):
            out_channels = 16 * factor * 2**stage
            stride = 2 if stage > 0 and index == 0 else 1
            block = WideBlock(channels, out_channels, stride, dropout)
            block.first_of_stage = index == 0
            children[f"layer{stage + 1}_{index}"] = block
            channels = out_channels
    linear = nn.Linear(channels, num_classes)
    children["classifier"] = nn.Sequential(
        OrderedDict(
            bn=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=linear,
        )
    )
    network = nn.Sequential(children)
    initialise(network)
    nn.init.zeros_(linear.bias)
    return network
