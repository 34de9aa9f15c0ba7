"""Which network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.recipes.settings import settings

Option = bool | int | float | str | tuple[int | float | str, ...]


@settings
class Backbone:
    """The network to be trained: a flat sequence of named blocks, the last of which is the classifier."""

    name: Annotated[str, Field(min_length=1)]
    """A name that `local-learning list` shows, such as `resnet32`, or `path/to/file.py:function` for your own."""

    shortcut: Literal["projection", "identity"] | None = None
    """CIFAR ResNets: 1x1 projection where the shape changes (option B) or zero-padded identity (option A)."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """CIFAR ResNets: channels of the three stages; (16, 32, 64) unless given."""

    stem: Literal["cifar", "imagenet"] | None = None
    """ResNet-18 to -152: 3x3 stride 1 without pooling, or 7x7 stride 2 with pooling; by image size unless given."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Wide ResNets: dropout probability between the two convolutions of a block; 0 unless given."""

    weights: str | None = None
    """File (.safetensors, or torchvision's .pth) whose weights the training starts from."""

    options: dict[str, Option] = Field(default_factory=dict)
    """Keyword arguments for a function of your own."""
