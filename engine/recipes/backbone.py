"""Settings of the network that is trained."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.errors import RecipeError
from engine.paths import absolute
from engine.recipes.settings import PathText, left_out_unless_given, plain_option, settings

Option = bool | int | float | str | tuple[bool | int | float | str, ...]
Options = dict[str, Annotated[Option, BeforeValidator(plain_option)]]
"""Values by the names of arguments: as they were given, so that code finds in a run what it found in a program."""


@settings
class Backbone:
    """The network to be trained: a flat sequence of named blocks, the last of which is the classifier."""

    name: Annotated[str, Field(min_length=1)]
    """A name that `local-learning list` shows, such as `resnet32`, or `path/to/file.py:function` for your own."""

    shortcut: Literal["projection", "identity", "pooled_identity"] | None = None
    """CIFAR ResNets, where the shape changes: 1x1 projection (option B, unless given), zero-padded identity of every
    second pixel (option A), or `pooled_identity`, of the mean of 2x2 pixels (as released with dynamic hierarchical
    mimicking)."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """CIFAR ResNets: channels of the three stages; (16, 32, 64) unless given."""

    stem: Literal["cifar", "imagenet", "deep"] | None = None
    """ResNet-18 to -152, ResNeXts, VGG, InceptionV1, MobileNets, MNASNets, ShuffleNets and EfficientNets: `imagenet`
    is as published, `cifar` keeps small images large (in ResNets and ResNeXts: 3x3 stride 1 without pooling); by image
    size unless given.
    Networks for segmentation: `deep`, three 3x3 convolutions, unless given; or `imagenet`, torchvision's 7x7."""

    output_stride: Literal[8, 16, 32] | None = None
    """Networks for segmentation: pixels of the image for each position of the last features, in a row; 8 unless given.
    The stages that would lower the resolution further are dilated."""

    strides: Literal["three", "four"] | tuple[Literal[1, 2], ...] | None = None
    """MobileNetV1: the strides of its 13 blocks, or a plan: `three` halvings (32x32 images end at 4x4) or `four` (2x2,
    as published); three with the cifar stem and four with the imagenet stem unless given."""

    activation: Literal["relu", "relu6"] | None = None
    """MobileNetV1: `relu` as in the paper unless given, or `relu6`, which stops at 6, as in TensorFlow's code."""

    last_stride: Literal[1, 2] | None = None
    """ResNet-18 to -152 and ResNeXts: the stride of the last stage, 2 as published unless given; 1 keeps its maps twice
    as high and wide, as is usual for retrieval. The weights are of the same shapes."""

    neck: Literal["batch_norm"] | None = None
    """A batch norm between the pooled features and the classifier, which then has no bias (BNNeck, Luo et al. 2019):
    the triplet loss takes the features before it, classifier and retrieval those behind it. None unless given."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Dropout probability: in wide ResNets between the two convolutions of a block, in VGG, InceptionV1, MobileNets,
    MNASNets and EfficientNets before the linear layers. Unless given, 0 in wide ResNets, MobileNetV1 and VGG with the
    cifar stem, and torchvision's in the others."""

    auxiliary_heads: bool | None = None
    """InceptionV1: whether two more classifiers, after blocks 4a and 4d, help in training; networks for segmentation:
    one, after the third stage. They do not unless given."""

    weights: PathText | None = None
    """File (.safetensors, or torchvision's .pth) whose weights the training starts from."""

    weights_without: Literal["classifier"] | None = None
    """What of `weights` is left out: a new classifier, for classes of your own, is trained on top of the others. It
    starts as in a network without weights."""

    options: Options = Field(default_factory=dict)
    """Keyword arguments for a function of your own."""

    _serialize = left_out_unless_given("weights_without", "output_stride", "last_stride", "neck", "activation")

    @model_validator(mode="after")
    def _check_weights(self) -> Backbone:
        if self.weights_without is not None and self.weights is None:
            raise ValueError(
                "weights_without says what of the weights is left out, but weights is not given: give it, or set "
                "weights_without=null"
            )
        return self

    def without_weights(self) -> Backbone:
        """Return the same network without the file that its training starts from."""
        return dataclasses.replace(self, weights=None, weights_without=None)

    def with_absolute_paths(self) -> Backbone:
        """Return the same with the paths of a file of your own and of weights made absolute.

        Raises:
            RecipeError: a path means nothing on this machine.
        """
        name, weights = self.name, self.weights
        file, colon, function = name.rpartition(":")
        if colon and file.endswith(".py"):
            name = f"{absolute(file, 'backbone.name', RecipeError)}:{function}"
        if weights is not None:
            weights = str(absolute(weights, "backbone.weights", RecipeError))
        return dataclasses.replace(self, name=name, weights=weights)
