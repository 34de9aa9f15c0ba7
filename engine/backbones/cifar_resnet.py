"""ResNets for small images (He et al. 2016, section 4.2)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from engine.backbones import residual
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family, whole_blocks
from engine.errors import RecipeError

_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_LISTED = {f"resnet{depth}": f"CIFAR ResNet of {(depth - 2) // 2} basic blocks in 3 stages" for depth in _DEPTHS}


class PaddedIdentity(nn.Module):
    """Shortcut of option A: every stride-th pixel, and zeros for the channels that the input lacks."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, out_channels, H / stride, W / stride], rounded up."""
        smaller = self.smaller(features)
        return functional.pad(smaller, (0, 0, 0, 0, 0, self.out_channels - smaller.shape[1]))

    def smaller(self, features: Tensor) -> Tensor:
        """Return [B, C, H / stride, W / stride], rounded up, of features [B, C, H, W]."""
        return features[:, :, :: self.stride, :: self.stride]


class PooledIdentity(PaddedIdentity):
    """Shortcut as in the released code of Li and Chen (2020): the mean of 2x2 pixels, and zeros for lacking channels.

    At the border of odd sizes the mean is that of the pixels that are there.
    """

    def smaller(self, features: Tensor) -> Tensor:
        """Return [B, C, H / stride, W / stride], rounded up, of features [B, C, H, W]."""
        return functional.avg_pool2d(features, self.stride, ceil_mode=True)


_SHORTCUTS: dict[str, residual.Shortcut] = {
    "projection": residual.projection,
    "identity": PaddedIdentity,
    "pooled_identity": PooledIdentity,
}


@family("CIFAR ResNet", _LISTED, stage_prefix, pattern=r"resnet\d+")
def build_cifar_resnet(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    shortcut: str = "projection",
    widths: tuple[int, ...] = (16, 32, 64),
) -> nn.Sequential:
    """Build depth 6n + 2: stem, three stages of n basic blocks, pool, linear; weights as in InfoPro."""
    depth = int(name.removeprefix("resnet"))
    count = whole_blocks(name, depth, layers=6, others=2)
    if len(widths) != 3:
        raise RecipeError(f"backbone.widths={widths}: {name} has 3 stages. Expected 3 widths, such as (16, 32, 64).")
    if shortcut != "projection" and list(widths) != sorted(widths):
        raise RecipeError(
            f"backbone.widths={widths}: identity shortcuts can only add channels. "
            "Expected widths that do not shrink, or backbone.shortcut=projection."
        )
    stem = residual.stem(image_shape[0], widths[0], kernel_size=3, stride=1, pool=False)
    blocks = residual.stages(residual.BasicBlock, widths[0], widths, (count,) * 3, _SHORTCUTS[shortcut])
    classifier = residual.classifier(widths[2], num_classes)
    network = nn.Sequential(OrderedDict([("stem", stem), *blocks, ("classifier", classifier)]))
    initialise(network)
    return network
