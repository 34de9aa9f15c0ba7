"""Handwritten digits that need no files and no network.

The 1797 test digits of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), as
scikit-learn's `load_digits` brings them: 8 x 8 pixels with values 0 to 16.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from engine.data.parts import EncodedPart, Loaded, PixelPart

NUM_TRAIN = 500
_GREY_LEVELS_PER_COUNT = 15  # 16 counts become 240, the largest multiple that fits in a byte


def load_digits() -> Loaded:
    """Return 500 training and 1297 test images, uint8 [n, 1, 8, 8], of the ten digits."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        images = (stored["images"] * np.uint8(_GREY_LEVELS_PER_COUNT))[:, None]
        labels = stored["labels"].astype(np.int64)
    # NumPy promises that RandomState's numbers never change, so this split is the same everywhere.
    order = np.random.RandomState(0).permutation(len(images))
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, chosen in (("train", order[:NUM_TRAIN]), ("test", order[NUM_TRAIN:])):
        parts[split] = PixelPart(labels=labels[chosen], blocks=functools.partial(list, [images[chosen]]))
    return Loaded(class_names=tuple("0123456789"), parts=parts)
