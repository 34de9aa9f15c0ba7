"""A small set in Market-1501's layout whose identities are colours, and a recipe that learns them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.recipes import Backbone, Data, Recipe, Retrieval


def market(root: Path, identities: int = 8, boxes: bool = False) -> Path:
    """Write pictures whose identity is a colour, and whose camera is a shade of grey below."""
    random = np.random.default_rng(0)

    def draw(folder: str, identity: int, camera: int, frame: int) -> None:
        picture = random.integers(0, 30, (16, 8, 3), dtype=np.uint8)
        picture[:8] += np.array([identity * 53 % 200, identity * 97 % 200, identity * 151 % 200], dtype=np.uint8)
        picture[8:] += np.uint8(30 * camera)
        (root / folder).mkdir(parents=True, exist_ok=True)
        name = f"{identity:04d}_c{camera}s1_{frame:06d}_00.jpg"
        Image.fromarray(picture).save(root / folder / name, quality=95)

    for identity in range(1, identities + 1):
        for camera in (1, 2, 3):
            for frame in range(2):
                if identity % 2:
                    draw("bounding_box_train", identity, camera, frame)
                else:
                    draw("query" if frame == 0 and camera < 3 else "bounding_box_test", identity, camera, frame)
                if boxes:
                    draw("gt_bbox", identity, camera, frame)
    draw("bounding_box_test", 0, 1, 9)
    return root


def recipe_for(root: Path, method: Any, **changes: Any) -> Recipe:
    recipe = Recipe(
        name="people",
        method=method,
        backbone=Backbone(name="resnet8", widths=(4, 8, 8)),
        data=Data(name="market1501", root=str(root), batch_size=10, evaluation_batch_size=7, image_size=(16, 8)),
        task=Retrieval(),
        epochs=2,
    )
    return dataclasses.replace(recipe, **changes)
