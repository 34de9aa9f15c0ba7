"""torchvision's networks of inverted residual blocks (MobileNetV2, V3, EfficientNet) as flat sequences.

Sources: Sandler et al. 2018 (arXiv 1801.04381), Howard et al. 2019 (1905.02244), Tan and Le 2019 (1905.11946) and
2021 (2104.00298).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from engine.backbones.adaptation import is_imagenet_stem, keep_small_images_large, set_dropout, take_channels
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family

_LISTED = {
    "mobilenet_v2": "torchvision's MobileNetV2 of 17 inverted residual blocks",
    "mobilenet_v3_small": "torchvision's MobileNetV3-Small of 11 inverted residual blocks",
    "mobilenet_v3_large": "torchvision's MobileNetV3-Large of 15 inverted residual blocks",
    **{f"efficientnet_b{index}": f"torchvision's EfficientNet-B{index}, in 7 stages" for index in range(8)},
    "efficientnet_v2_s": "torchvision's EfficientNetV2-S, in 6 stages",
    "efficientnet_v2_m": "torchvision's EfficientNetV2-M, in 7 stages",
    "efficientnet_v2_l": "torchvision's EfficientNetV2-L, in 7 stages",
}


def plain_prefix(child: str) -> str:
    """Return torchvision's prefix for a child: ``features_2_0`` is ``features.2.0``, the stem ``features.0``."""
    return "features.0" if child == "stem" else stage_prefix(child)


@family("torchvision MobileNetV2, V3 or EfficientNet", _LISTED, plain_prefix)
def build_inverted_residual(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    dropout: float | None = None,
) -> nn.Sequential:
    """Build stem, inverted residual blocks, the last 1x1 convolution, and pool with torchvision's classifier.

    Children are named after torchvision's places: ``features_4`` of a MobileNet, ``features_4_0`` of an EfficientNet,
    whose stages are sequences of blocks. Initial weights are drawn as in torchvision.

    With the imagenet stem this is torchvision's network, which halves the image five times. With the cifar stem the
    first two of these, the stem's and that of the first block with one, keep its size, and 32x32 images end at 4x4:
    the block is ``features_2`` (``features_1`` in MobileNetV3-Small, which thereby becomes a residual one;
    ``features_2_0`` in EfficientNets).
    """
    # Imported late: it takes a second and 20 MB, and most learners have no use for it.
    import torchvision

    whole = getattr(torchvision.models, name)(num_classes=num_classes)
    if not is_imagenet_stem(stem, image_shape):
        keep_small_images_large(whole.features)
    initialise(take_channels(whole, image_shape[0]))
    set_dropout(whole.classifier, dropout)
    first, *middle, last = whole.features.named_children()
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=first[1])
    for place, part in middle:
        # A stage of blocks is a plain Sequential; a block is not.
        blocks = part.named_children() if type(part) is nn.Sequential else [("", part)]
        for index, block in blocks:
            _mark_residual(block)
            children[f"features_{place}_{index}".removesuffix("_")] = block
    children[f"features_{last[0]}"] = last[1]
    children["classifier"] = nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=whole.classifier)
    )
    return nn.Sequential(children)


def _mark_residual(block: Any) -> None:
    # torchvision's rule, applied again because a stride may have changed.
    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    keeps_size = all(convolution.stride == (1, 1) for convolution in convolutions)
    block.use_res_connect = keeps_size and convolutions[0].in_channels == block.out_channels
    block.bypassable = block.use_res_connect
    # MobileNetV2 calls it conv, the others block. Not set as an attribute, which would register its weights twice.
    vars(block)["branch_end"] = (block.conv if hasattr(block, "conv") else block.block)[-1]
