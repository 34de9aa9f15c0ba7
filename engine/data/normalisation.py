"""Mean and standard deviation with which images are normalised."""

from __future__ import annotations

import numpy as np

from engine.errors import DataError
from engine.recipes.data import Data

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of values in [0, 1]."""

PUBLISHED: dict[str, Statistics] = {
    # InfoPro's code (Wang et al., 2021).
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    # The values in common use, from the training set.
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # InfoPro's code scales both of these to [-1, 1].
    "svhn": ((127.5 / 255,) * 3, (127.5 / 255,) * 3),
    "stl10": ((127.5 / 255,) * 3, (127.5 / 255,) * 3),
}
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""For sets that are too large to be decoded beforehand."""

_IMAGES_AT_ONCE = 64


def value_sums(images: np.ndarray) -> np.ndarray:
    """Return number, sum and sum of squares of the values of uint8 [n, C, H, W] images, exact, int64 [3, C]."""
    sums = np.zeros((3, images.shape[1]), dtype=np.int64)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        block = images[start : start + _IMAGES_AT_ONCE]
        # Double precision holds these whole numbers exactly, and is the fastest that numpy can multiply.
        values = block.transpose(1, 0, 2, 3).reshape(images.shape[1], -1).astype(np.float64)
        numbers = np.full(len(values), values.shape[1])
        sums += np.stack([numbers, values.sum(axis=1), np.einsum("cn,cn->c", values, values)]).astype(np.int64)
    return sums


def statistics(sums: np.ndarray) -> Statistics:
    """Return mean and standard deviation of the [0, 1] values from `value_sums`, or a total of several.

    The sums are whole numbers, so the result does not depend on the order of the images. A channel that never
    changes gets a standard deviation of 1, so that it can be divided by.
    """
    means, deviations = [], []
    for number, total, squares in sums.T.tolist():
        variance = (squares * number - total * total) / (number * number)
        means.append(total / number / 255)
        deviations.append(variance**0.5 / 255 if variance > 0 else 1.0)
    return tuple(means), tuple(deviations)


def choose_statistics(data: Data, channels: int, measured: Statistics) -> Statistics:
    """Return what the recipe gives, else what is published for the set, else what was measured.

    Raises:
        DataError: the recipe gives another number of channels than the images have.
    """
    if data.mean is None or data.std is None:
        return PUBLISHED.get(data.name, measured)
    for field, values in (("mean", data.mean), ("std", data.std)):
        if len(values) != channels:
            raise DataError(
                f"data.{field} has {len(values)} values, but the images of {data.name} have {channels} channels: "
                f"give one value per channel"
            )
    return data.mean, data.std
