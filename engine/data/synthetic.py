"""Synthetic images, made when they are needed and never stored.

Each class has a coarse pattern of colours; an image is its class's pattern plus noise, so classes can be learnt.
The noise is a window of one long random sequence, so an image costs no more than a copy.
"""

from __future__ import annotations

import numpy as np
import torch

from engine.streams import generator

CHANNELS = 3
DEFAULT_SIDE = 32
_PATTERN_SIDE = 4
_NOISE_LEVELS = 96
_SPARE_NOISE = 1 << 20
# Odd, hence coprime to _SPARE_NOISE: neighbouring images begin at distant places of the noise.
_STRIDE = 648_391


class SyntheticImages:
    """One split of synthetic images; an image is a function of (seed, split, position) alone."""

    look_ahead = False

    def __init__(self, split: str, number: int, num_classes: int, size: tuple[int, int], seed: int) -> None:
        self.labels = np.arange(number, dtype=np.int64) % num_classes
        height, width = size
        self.shape = (CHANNELS, height, width)
        coarse = torch.randint(
            0,
            256 - _NOISE_LEVELS,
            (num_classes, CHANNELS, _PATTERN_SIDE, _PATTERN_SIDE),
            generator=generator(seed, "synthetic", "patterns"),
            dtype=torch.uint8,
        )
        self._patterns = coarse.numpy()
        self._rows, self._columns = (np.arange(length) * _PATTERN_SIDE // length for length in size)
        self._noise = torch.randint(
            0,
            _NOISE_LEVELS,
            (_SPARE_NOISE + CHANNELS * height * width,),
            generator=generator(seed, "synthetic", split),
            dtype=torch.uint8,
        ).numpy()

    def evaluation_images(self, positions: np.ndarray) -> np.ndarray:
        """Return uint8 [B, 3, H, W]."""
        patterns = self._patterns[self.labels[positions]]
        images = patterns[:, :, self._rows[:, None], self._columns]
        starts = positions * _STRIDE % _SPARE_NOISE
        length = images[0].size if len(images) else 0
        for image, start in zip(images, starts.tolist(), strict=True):
            image += self._noise[start : start + length].reshape(self.shape)
        return images

    def training_images(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Return uint8 [B, 3, H, W]; they are augmented later, on the learner's device."""
        return self.evaluation_images(positions)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
