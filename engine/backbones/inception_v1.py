"""InceptionV1 (GoogLeNet, Szegedy et al. 2015, arXiv 1409.4842) with batch norm and auxiliary heads."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.backbones.adaptation import dropout_layer, is_imagenet_stem, take_channels
from engine.backbones.initial_weights import initialise
from engine.backbones.layouts import feature_layout
from engine.backbones.registry import family
from engine.backbones.shapes import feature_shapes
from engine.backbones.stages import StageEnd

_LISTED = {"inception_v1": "torchvision's GoogLeNet of 9 inception blocks with batch norm"}
_BLOCKS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
# The blocks that torchvision pools after. Pooling belongs to the block before it: what a cut passes on is then small,
# and no segment is without parameters.
_POOLS = {"inception3b": "maxpool3", "inception4e": "maxpool4"}
_HEADS_AFTER = ("inception4a", "inception4d")


def plain_prefix(child: str) -> str:
    """Return torchvision's prefix for a child: a block's own name, which blocks with pooling contain already."""
    return "" if child in ("stem", "classifier", *_POOLS) else child


@family("InceptionV1", _LISTED, plain_prefix)
def build_inception_v1(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    stem: str | None = None,
    dropout: float = 0.2,
    auxiliary_heads: bool = False,
) -> nn.Sequential:
    """Build stem, nine inception blocks, pool, dropout, linear.

    The blocks are torchvision's, whose "5x5" branch is a single 3x3 convolution. The imagenet stem is torchvision's,
    7x7 and 3x3 with poolings. The cifar stem is one 3x3 convolution to 192 channels, which keeps 32x32 images as they
    are; with the poolings after 3b and 4e they end at 8x8. It follows a layout that is usual for CIFAR but pads, and
    has torchvision's blocks, where that one has two 3x3 convolutions in place of 5x5.

    Args:
        name: only inception_v1.
        num_classes: outputs of the classifier.
        image_shape: (C, H, W) of one image.
        stem: cifar or imagenet; by the height of the image unless given.
        dropout: probability before the linear layer; 0.2 as in torchvision, while the paper has 0.4.
        auxiliary_heads: changes nothing here, for the heads are no part of the network: see `inception_heads`.
    """
    # Imported late: it takes a second and 20 MB, and most learners have no use for it.
    from torchvision.models.googlenet import BasicConv2d, GoogLeNet

    whole = GoogLeNet(num_classes, aux_logits=False, init_weights=False)
    if is_imagenet_stem(stem, image_shape):
        take_channels(whole, image_shape[0])
        parts = OrderedDict(
            (part, getattr(whole, part)) for part in ("conv1", "maxpool1", "conv2", "conv3", "maxpool2")
        )
    else:
        parts = OrderedDict(conv1=BasicConv2d(image_shape[0], 192, kernel_size=3, padding=1))
    children: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(parts))
    for block in (f"inception{place}" for place in _BLOCKS):
        child = getattr(whole, block)
        if block in _POOLS:
            child = StageEnd(OrderedDict({block: child, _POOLS[block]: getattr(whole, _POOLS[block])}))
        children[block] = child
    children["classifier"] = nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), dropout=dropout_layer(dropout), fc=whole.fc)
    )
    network = nn.Sequential(children)
    initialise(network)
    return network


def inception_heads(
    network: nn.Sequential, num_classes: int, image_shape: tuple[int, int, int]
) -> dict[str, nn.Module]:
    """Return GoogLeNet's two classifiers after blocks 4a and 4d, by the child whose output each reads.

    Szegedy et al. 2015, section 5, where their losses count 0.3 each: pooling to 4x4, 1x1 convolution to 128 channels,
    linear layer to 1024, dropout of 0.7, linear layer. Each maps the child's output [B, C, H, W] to logits
    [B, num_classes]. Float32 parameters in training mode, drawn from torch's default generator: convolutions as the
    network's, linear layers as torch's.

    Args:
        network: what `build_inception_v1` returned.
        num_classes: outputs of each head.
        image_shape: (C, H, W) of one image.
    """
    from torchvision.models.googlenet import InceptionAux

    shapes = dict(zip(network._modules, feature_shapes(network, image_shape), strict=True))
    heads: dict[str, nn.Module] = {}
    for block in _HEADS_AFTER:
        heads[block] = InceptionAux(feature_layout(shapes[block]).channels, num_classes)
        initialise(heads[block])
    return heads
