"""torchvision's ShuffleNets of version 2 (Ma et al. 2018, arXiv 1807.11164) as flat sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.backbones import residual
from engine.backbones.adaptation import is_imagenet_stem, take_channels
from engine.backbones.plain_names import stage_prefix
from engine.backbones.registry import family

_LISTED = {
    f"shufflenet_v2_x{width}": f"torchvision's ShuffleNetV2 of 16 units, {width.replace('_', '.')} times as wide"
    for width in ("0_5", "1_0", "1_5", "2_0")
}


@family("torchvision ShuffleNetV2", _LISTED, stage_prefix)
def build_shufflenet_v2(
    name: str, num_classes: int, image_shape: tuple[int, int, int], *, stem: str | None = None
) -> nn.Sequential:
    """Build stem, three stages of units, a 1x1 convolution, pool, linear; initial weights as in torchvision.

    With the imagenet stem this is torchvision's network. With the cifar stem the first convolution has stride 1 and
    no pooling follows it; each stage still halves the image, so 32x32 images end at 4x4. No unit can be bypassed: it
    changes half of its channels and shuffles all, so it is no residual one.
    """
    # Imported late: it takes a second and 20 MB, and most learners have no use for it.
    import torchvision

    whole = getattr(torchvision.models, name)(num_classes=num_classes)
    first = take_channels(whole, image_shape[0])
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=whole.conv1)
    if is_imagenet_stem(stem, image_shape):
        parts["maxpool"] = whole.maxpool
    else:
        first.stride = (1, 1)
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(parts))
    for stage in ("stage2", "stage3", "stage4"):
        for index, unit in getattr(whole, stage).named_children():
            children[f"{stage}_{index}"] = unit
    children["conv5"] = whole.conv5
    children["classifier"] = residual.classifier(whole.fc.in_features, num_classes)
    return nn.Sequential(children)
