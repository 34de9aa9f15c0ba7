"""Heads: auxiliary networks from features to class logits or an embedding.

Every function draws initial weights from torch's default generator, so call it inside ``engine.streams.seeded``.
``outputs`` is the number of classes, or the embedding size for the contrastive loss. All heads map features
``[B, *feature_shape]`` to ``[B, outputs]``.
"""

from __future__ import annotations

import math

from torch import nn

from engine.backbones import Maps, Vectors, require_layout
from engine.errors import RecipeError
from engine.objectives.auxiliary_networks import initialise, is_large
from engine.objectives.convolutions import Convolution, MeanOfPositions
from engine.objectives.pooling import AveragePool, GlobalAveragePool
from engine.objectives.recomputation import RecomputedSequence

_HIDDEN_SIZE = 128


def head_for(
    feature_shape: tuple[int, ...], image_shape: tuple[int, int, int], outputs: int, final_channels: int
) -> nn.Sequential:
    """Return the head that InfoPro publishes for images of this size: ``imagenet_head`` or ``conv_head``.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    if is_large(image_shape):
        return imagenet_head(feature_shape, outputs)
    return conv_head(feature_shape, outputs, final_channels)


def linear_head(feature_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return global average pool and linear layer, "0c1f": greedy supervised learning.

    Features ``[C]`` without positions are taken as they are.

    Raises:
        RecipeError: the features are neither ``[C]`` nor ``[C, H, W]``.
    """
    features = require_layout(feature_shape, "the linear head", Maps, Vectors)
    pool = [GlobalAveragePool()] if isinstance(features, Maps) else []
    return nn.Sequential(*pool, nn.Linear(features.channels, outputs))


def conv_head(
    feature_shape: tuple[int, ...], outputs: int, final_channels: int, convolutions: int = 1, linears: int = 2
) -> nn.Sequential:
    """Return InfoPro's "NcMf" head: N 3x3 convolutions, global average pool, M linear layers; "1c2f" unless told.

    While the channels C are fewer than those of the backbone's last feature map the first convolution widens to 2C
    with stride 2, as the backbone's next stage would; at the last width it keeps C and stride 1.

    Args:
        feature_shape: ``[C, H, W]``.
        outputs: classes or embedding size.
        final_channels: channels of the backbone's last feature map, 64 for CIFAR ResNets.
        convolutions: N, at least 0.
        linears: M, at least 1; all but the last have 128 outputs and a ReLU.

    Raises:
        RecipeError: the features are not a feature map.
    """
    channels = require_layout(feature_shape, "InfoPro's head", Maps).channels
    layers: list[nn.Module] = []
    strided = channels < final_channels
    for index in range(convolutions):
        widens = index == 0 and strided
        wider = 2 * channels if widens else channels
        convolution = Convolution(channels, wider, kernel_size=3, stride=2 if widens else 1, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(wider), nn.ReLU()]
        channels = wider
    layers.append(MeanOfPositions())
    for _ in range(linears - 1):
        layers += [nn.Linear(channels, _HIDDEN_SIZE), nn.ReLU()]
        channels = _HIDDEN_SIZE
    layers.append(nn.Linear(channels, outputs))
    # A convolution with stride 2 is cheap to do again beside the segment before it, and what it gives is not small.
    return initialise(RecomputedSequence(*layers, keeps_convolved=not strided))


def dgl_head(feature_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return the "mlp-sr" head of decoupled greedy learning (Belilovsky et al. 2020).

    Average pool to a quarter of the size, three 1x1 convolutions, average pool to 2x2, three hidden linear layers. All
    start as torch starts them, as in the authors' code.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    maps = require_layout(feature_shape, "the DGL head", Maps)
    channels, (height, width) = maps.channels, maps.grid
    quarter = (math.ceil(height / 4), math.ceil(width / 4))
    flat = 4 * channels
    layers: list[nn.Module] = [AveragePool((height, width), quarter)]
    for _ in range(3):
        layers += _convolution(channels, channels, kernel_size=1)
    layers += [AveragePool(quarter, (2, 2)), nn.Flatten()]
    for _ in range(3):
        layers += [nn.Linear(flat, flat), nn.BatchNorm1d(flat), nn.ReLU()]
    layers.append(nn.Linear(flat, outputs))
    return nn.Sequential(*layers)


def imagenet_head(feature_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return InfoPro's head for ImageNet: convolutions to 128, 256, 512 and 2048 channels, pool, linear layer.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """
    channels = require_layout(feature_shape, "InfoPro's ImageNet head", Maps).channels
    layers = [
        *_convolution(channels, 128, kernel_size=1),
        *_convolution(128, 256, kernel_size=3, stride=2),
        *_convolution(256, 512, kernel_size=3, stride=2),
        *_convolution(512, 2048, kernel_size=1),
        GlobalAveragePool(),
        nn.Linear(2048, outputs),
    ]
    return initialise(nn.Sequential(*layers))


def prediction_head(feature_shape: tuple[int, ...], outputs: int, dim_in: int) -> nn.Sequential:
    """Return the prediction head of PredSim (Nokland & Eidnes 2019): average pool, then a linear layer.

    Height and width are halved in turn, height first, until at most ``dim_in`` features remain: 4096 in the paper,
    2048 for its CIFAR recipe, 512 in AugLocal's port to CIFAR ResNets. The linear weight starts at zero.

    Where a window does not divide the size the maps are padded with zeros, by half a window before and behind, and the
    zeros count, as in the authors' code; what then lies behind the last whole window is left out.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``, or have more than ``dim_in`` channels.
    """
    maps = require_layout(feature_shape, "the PredSim head", Maps)
    channels, (height, width) = maps.channels, maps.grid
    if channels > dim_in:
        raise RecipeError(
            f"method.prediction_features={dim_in} is the most inputs of the PredSim head, but the segment gives "
            f"{channels} channels, which pooling does not reduce: set it to at least {channels}"
        )
    window = [1, 1]
    pooled = [height, width]
    axis = 0
    while channels * pooled[0] * pooled[1] > dim_in:
        if pooled[axis] > 1:
            window[axis] *= 2
            pooled[axis] = math.ceil((height, width)[axis] / window[axis])
        axis = 1 - axis
    padding = [0 if size % side == 0 else side // 2 for size, side in zip((height, width), window, strict=True)]
    linear = nn.Linear(channels * pooled[0] * pooled[1], outputs)
    nn.init.zeros_(linear.weight)
    pool = nn.AvgPool2d((window[0], window[1]), padding=(padding[0], padding[1]))
    return nn.Sequential(pool, nn.Flatten(), linear)


def _convolution(channels: int, outputs: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    padding = kernel_size // 2
    return [
        nn.Conv2d(channels, outputs, kernel_size, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
