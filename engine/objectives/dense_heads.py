"""Heads of label maps: auxiliary networks from feature maps to logits at each of their positions.

Every function draws initial weights from torch's default generator, so call it inside ``engine.streams.seeded``. All
map features ``[B, C, h, w]`` to ``[B, outputs, h, w]``.
"""

from __future__ import annotations

from torch import nn

from engine.backbones import Maps, require_layout

DROPOUT = 0.1
"""Of whole channels in front of the last convolution, as in all heads of InfoPro's code."""


def dense_linear_head(feature_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return a linear layer at each position: greedy supervised learning, without the pooling of its classifier.

    Raises:
        RecipeError: the features are no feature map ``[C, H, W]``.
    """
    channels = require_layout(feature_shape, "the linear head of label maps", Maps).channels
    return nn.Sequential(nn.Conv2d(channels, outputs, kernel_size=1))


def dense_dgl_head(feature_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return what of DGL's "mlp-sr" head has a meaning at each position: three 1x1 convolutions, then a linear layer.

    Its pooling and the layers behind it (Belilovsky et al. 2020) would leave no positions. All start as torch starts
    them, as in the authors' code.

    Raises:
        RecipeError: the features are no feature map ``[C, H, W]``.
    """
    channels = require_layout(feature_shape, "the DGL head of label maps", Maps).channels
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(channels, channels, kernel_size=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, outputs, kernel_size=1))


def dense_infopro_head(feature_shape: tuple[int, ...], outputs: int, final_channels: int) -> nn.Sequential:
    """Return InfoPro's local head for Cityscapes: a 3x3 convolution with bias, batch norm, ReLU, dropout, 1x1.

    The width is a quarter of the backbone's last feature maps: 512 for ResNet-101, as in the released code, 128 for
    ResNet-18. All weights start as torch starts them, as there.

    Args:
        feature_shape: ``[C, H, W]``.
        outputs: classes.
        final_channels: channels of the backbone's last feature maps.

    Raises:
        RecipeError: the features are no feature map.
    """
    channels = require_layout(feature_shape, "InfoPro's head of label maps", Maps).channels
    width = max(1, final_channels // 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(DROPOUT),
        nn.Conv2d(width, outputs, kernel_size=1),
    )
