"""Do the features have the shape that an auxiliary network needs?"""

from __future__ import annotations

from engine.errors import RecipeError

# From this image height on the networks published for ImageNet are used: the CIFAR decoder works with all channels
# of the features at image resolution, which costs more than the backbone itself at 224.
LARGE_IMAGE_HEIGHT = 128


def feature_map(feature_shape: tuple[int, ...], wanted_by: str) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Raises:
        RecipeError: the features, without the batch axis, are not of shape ``[C, H, W]``.
    """
    if len(feature_shape) != 3:
        raise RecipeError(
            f"{wanted_by} needs features of shape (channels, height, width), but the segment gives "
            f"{tuple(feature_shape)}: choose method.cuts after blocks that give feature maps, or method.kind=greedy, whose "
            "head takes features without positions"
        )
    channels, height, width = feature_shape
    return channels, height, width


def is_large(image_shape: tuple[int, int, int]) -> bool:
    """Return whether images ``(C, H, W)`` call for the auxiliary networks published for ImageNet."""
    return image_shape[1] >= LARGE_IMAGE_HEIGHT
