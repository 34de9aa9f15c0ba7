"""Random changes of pictures together with their label maps: scale, crop, and distortion of colours.

As in InfoPro's code for Cityscapes (mmsegmentation 0.10), in its order: the picture is scaled, a crop is drawn, again
up to ten times where one class covers too much of it, colours are distorted in 8 bits, and what lies outside of the
picture is filled. Labels are never interpolated. Mirroring comes later, on the learner's device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from engine.data.pictures.label_maps import nearest
from engine.data.readers.class_tables import IGNORED
from engine.recipes.data import Augmentation
from engine.streams import generator

_CROPS = 11
_BRIGHTNESS = 32
_CONTRAST = _SATURATION = (0.5, 1.5)
_HUE = 18 / 180
_DRAWS = 1 + 2 * _CROPS + 9


@dataclass(frozen=True)
class MapAugmentation:
    """The way from a stored picture and label map to those of a training batch.

    Attributes:
        augmentation: of the recipe.
        size: height and width of what comes out.
        padding: uint8 [3], the colour of what lies outside of the picture: the mean of the set, so that it becomes 0.
        seed: of the recipe.
    """

    augmentation: Augmentation
    size: tuple[int, int]
    padding: np.ndarray
    seed: int

    def draws(self, number: int, epoch: int, step: int) -> np.ndarray:
        """Return the random numbers of a batch, float64 [B, n] in [0, 1), a pure function of (seed, epoch, step)."""
        stream = generator(self.seed, "label map augmentation", epoch, step)
        return torch.rand((number, _DRAWS), generator=stream, dtype=torch.float64).numpy()

    def __call__(self, image: np.ndarray, label_map: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an augmented picture and label map.

        Args:
            image: uint8 [3, h, w].
            label_map: uint8 [h, w].
            draws: a row of `draws`.

        Returns:
            uint8 [3, H, W] and uint8 [H, W].
        """
        scaled = self._scaled(label_map.shape, draws[0])
        upper, left = self._place(label_map, scaled, draws[1 : 1 + 2 * _CROPS].reshape(_CROPS, 2))
        height, width = min(self.size[0], scaled[0]), min(self.size[1], scaled[1])
        pixels = _resized(image, scaled, (upper, left), (height, width))
        if self.augmentation.photometric_distortion:
            pixels = distorted(pixels, draws[1 + 2 * _CROPS :])
        whole = np.empty((3, *self.size), dtype=np.uint8)
        whole[:] = self.padding[:, None, None]
        labels = np.full(self.size, IGNORED, dtype=np.uint8)
        whole[:, :height, :width] = pixels
        labels[:height, :width] = _cropped_map(label_map, scaled, (upper, left), (height, width))
        return whole, labels

    def _scaled(self, size: tuple[int, ...], draw: float) -> tuple[int, int]:
        if self.augmentation.scale is None:
            return size[0], size[1]
        smallest, largest = self.augmentation.scale
        factor = smallest + (largest - smallest) * draw
        return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

    def _place(self, label_map: np.ndarray, scaled: tuple[int, int], draws: np.ndarray) -> tuple[int, int]:
        """Return the upper and left edge of the crop in the scaled picture."""
        spare = [max(0, scaled[axis] - self.size[axis]) for axis in range(2)]
        places = np.floor(draws * (np.array(spare) + 1)).astype(np.int64)
        share = self.augmentation.largest_class_share
        size = (min(self.size[0], scaled[0]), min(self.size[1], scaled[1]))
        for upper, left in places[:-1].tolist() if share is not None else ():
            counts = np.bincount(_cropped_map(label_map, scaled, (upper, left), size).ravel(), minlength=256)[:IGNORED]
            if (counts > 0).sum() > 1 and counts.max() < share * counts.sum():
                return upper, left
        # As in the released code, the last of the crops is taken without another look.
        upper, left = places[0 if share is None else -1].tolist()
        return upper, left


def distorted(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return a picture with other brightness, contrast, saturation and hue, each with probability one half.

    Brightness is changed by up to 32 of 255, contrast and saturation by factors of 0.5 to 1.5, hue by up to a tenth of
    the circle. A coin decides whether contrast comes before or after saturation and hue. Values are cut to 8 bits after
    each change.

    Args:
        pixels: uint8 [3, H, W].
        draws: float64 [9], in [0, 1).
    """
    bright, contrast, late, saturation, hue = draws[[0, 2, 4, 5, 7]] < 0.5
    if bright:
        pixels = _linear(pixels, 1.0, _between(-_BRIGHTNESS, _BRIGHTNESS, draws[1]))
    if contrast and not late:
        pixels = _linear(pixels, _between(*_CONTRAST, draws[3]), 0.0)
    if saturation or hue:
        values = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("HSV")).copy()
        if saturation:
            values[:, :, 1] = _linear(values[:, :, 1], _between(*_SATURATION, draws[6]), 0.0)
        if hue:
            # Bytes go round as the circle does.
            values[:, :, 0] += np.uint8(round(256 * _between(-_HUE, _HUE, draws[8])) % 256)
        pixels = np.asarray(Image.fromarray(values, mode="HSV").convert("RGB")).transpose(2, 0, 1)
    if contrast and late:
        pixels = _linear(pixels, _between(*_CONTRAST, draws[3]), 0.0)
    return pixels


def _between(low: float, high: float, draw: float) -> float:
    return float(low + (high - low) * draw)


def _linear(values: np.ndarray, factor: float, added: float) -> np.ndarray:
    changed: np.ndarray = np.clip(values.astype(np.float32) * factor + added, 0, 255).astype(np.uint8)
    return changed


def _cropped_map(
    label_map: np.ndarray, scaled: tuple[int, int], place: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    rows, columns = (
        nearest(place[axis] + np.arange(size[axis]), label_map.shape[axis] / scaled[axis], label_map.shape[axis])
        for axis in range(2)
    )
    return label_map[rows[:, None], columns[None, :]]


def _resized(image: np.ndarray, scaled: tuple[int, int], place: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Cut an area out of a scaled picture (bilinear, antialiased where it becomes smaller), uint8 [3, *size]."""
    _, height, width = image.shape
    if scaled == (height, width):
        return image[:, place[0] : place[0] + size[0], place[1] : place[1] + size[1]]
    down, across = height / scaled[0], width / scaled[1]
    box = (place[1] * across, place[0] * down, (place[1] + size[1]) * across, (place[0] + size[0]) * down)
    # A rounding of the last edge may lie a little outside of the picture.
    box = (box[0], box[1], min(box[2], float(width)), min(box[3], float(height)))
    resized = Image.fromarray(image.transpose(1, 2, 0)).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).transpose(2, 0, 1)
