"""torchvision's MNASNets (Tan et al. 2019, arXiv 1807.11626, variant B1) as flat sequences."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from engine.backbones.adaptation import is_imagenet_stem, keep_small_images_large, set_dropout, take_channels
from engine.backbones.initial_weights import initialise
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family

_LISTED = {
    f"mnasnet{width}": f"torchvision's MNASNet of 16 inverted residual blocks, {width.replace('_', '.')} times as wide"
    for width in ("0_5", "0_75", "1_0", "1_3")
}


def plain_prefix(child: str) -> str:
    """Return torchvision's prefix for a child: ``layers_8_0`` is ``layers.8.0``; stem and head: ``layers``."""
    return "layers" if child in ("stem", "head") else stage_prefix(child)


@family("torchvision MNASNet", _LISTED, plain_prefix)
def build_mnasnet(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    dropout: float | None = None,
) -> nn.Sequential:
    """Build stem (a convolution and a separable one), 16 blocks, head (a 1x1 convolution), pool, dropout, linear.

    With the imagenet stem this is torchvision's network. With the cifar stem the first two strides of 2, in the stem's
    first convolution and in ``layers_8_0``, are 1: 32x32 images end at 4x4. Initial weights are drawn as in
    torchvision.
    """
    # Imported late: it takes a second and 20 MB, and most learners have no use for it.
    import torchvision

    whole = getattr(torchvision.models, name)(num_classes=num_classes)
    if not is_imagenet_stem(stem, image_shape):
        keep_small_images_large(whole.layers)
    initialise(take_channels(whole, image_shape[0]))
    set_dropout(whole.classifier, dropout)
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential())
    head = nn.Sequential()
    for place, part in whole.layers.named_children():
        if type(part) is nn.Sequential:
            for index, block in part.named_children():
                _mark_residual(block)
                children[f"layers_{place}_{index}"] = block
        else:
            # Before the first stack of blocks and after the last one the layers are not grouped.
            (children["stem"] if len(children) == 1 else head).add_module(place, part)
    children["head"] = head
    children["classifier"] = nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=whole.classifier)
    )
    return nn.Sequential(children)


def _mark_residual(block: Any) -> None:
    block.bypassable = block.apply_residual
    # Not as an attribute, which would register the module a second time.
    vars(block)["branch_end"] = block.layers[-1]
