"""The image size from which the auxiliary networks published for ImageNet are used."""

from __future__ import annotations

# From this image height on the networks published for ImageNet are used: the CIFAR decoder works with all channels
# of the features at image resolution, which costs more than the backbone itself at 224.
LARGE_IMAGE_HEIGHT = 128


def is_large(image_shape: tuple[int, int, int]) -> bool:
    """Return whether images ``(C, H, W)`` call for the auxiliary networks published for ImageNet."""
    return image_shape[1] >= LARGE_IMAGE_HEIGHT
