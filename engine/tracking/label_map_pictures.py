"""Draws images beside their label maps: what is there, and what networks predict."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.atomic import write_synced

IGNORED_COLOUR = (0, 0, 0)
"""Of pixels without a class."""

_GAP = 4
_LINE = 14
_SMALLEST = 120

# As the authors of Cityscapes draw its classes.
_CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}


def palette_of(class_names: Sequence[str]) -> np.ndarray:
    """Return a colour for each value, uint8 ``[256, 3]``: Cityscapes' own, else hues far from one another."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:] = IGNORED_COLOUR
    for label, name in enumerate(class_names):
        # Steps of the golden ratio: neighbours in the list are never neighbours in hue.
        hue, value = (label * 0.618) % 1, (0.95, 0.65)[label % 2]
        other = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.65, value))
        palette[label] = _CITYSCAPES[name] if set(class_names) <= set(_CITYSCAPES) else other
    return palette


def draw_label_maps(
    target: Path,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predicted: Mapping[str, Sequence[np.ndarray]],
    class_names: Sequence[str],
) -> None:
    """Write a PNG with a row for each image: the image, its labels, and what each network predicts.

    A pixel without a class is black: where labels have none, and where what a network gives is not a number.

    Args:
        target: the file.
        images: uint8 ``[3, H, W]`` each.
        labels: uint8 ``[H, W]`` each, 255 where a pixel has no class.
        predicted: by network, in the order of the columns, uint8 ``[H, W]`` for each image.
        class_names: in label order.

    Raises:
        NotWritten: the file cannot be written.
    """
    palette = palette_of(class_names)
    columns = ["image", "labels", *predicted]
    width = max(_SMALLEST, *(image.shape[2] for image in images))
    heights = [image.shape[1] for image in images]
    names = _rows_of(class_names, len(columns) * (width + _GAP) // _SMALLEST)
    whole = Image.new(
        "RGB",
        (len(columns) * (width + _GAP) + _GAP, sum(heights) + (len(heights) + 2) * _GAP + (1 + len(names)) * _LINE),
        (255, 255, 255),
    )
    pen = ImageDraw.Draw(whole)
    for column, name in enumerate(columns):
        pen.text((_GAP + column * (width + _GAP), _GAP), name, fill=(0, 0, 0))
    upper = _GAP + _LINE
    for row, image in enumerate(images):
        shown = [image.transpose(1, 2, 0), palette[labels[row]], *(palette[maps[row]] for maps in predicted.values())]
        for column, pixels in enumerate(shown):
            whole.paste(Image.fromarray(np.ascontiguousarray(pixels)), (_GAP + column * (width + _GAP), upper))
        upper += heights[row] + _GAP
    for line, row_of_names in enumerate(names):
        for place, (label, name) in enumerate(row_of_names):
            left, top = _GAP + place * _SMALLEST, upper + line * _LINE
            colour = tuple(int(part) for part in palette[label])
            pen.rectangle((left, top + 2, left + 9, top + 11), fill=colour)
            pen.text((left + 13, top), name[:16], fill=(0, 0, 0))
    content = io.BytesIO()
    whole.save(content, format="PNG")
    write_synced(target, content.getvalue())


def _rows_of(class_names: Sequence[str], each: int) -> list[list[tuple[int, str]]]:
    numbered = list(enumerate(class_names))
    each = max(1, each)
    return [numbered[start : start + each] for start in range(0, len(numbered), each)]
