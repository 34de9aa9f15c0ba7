"""What do the tests of label maps share: recipes that train a small network on cropped and scaled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.recipes import SGD, Augmentation, Backbone, Constant, Data, Recipe, Segmentation

TINY = f"{Path(__file__).with_name('dense_task.py')}:network"
CHANGES = Augmentation(
    crop=(16, 24), scale=(0.75, 1.5), largest_class_share=0.9, photometric_distortion=True, flip=True
)


def recipe_of(root: Path, method: Any, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "maps",
        "method": method,
        "task": Segmentation(),
        "backbone": Backbone(name=TINY),
        "data": Data(name="label_maps", root=str(root), batch_size=4, evaluation_batch_size=3, augmentation=CHANGES),
        "optimizer": SGD(learning_rate=0.1),
        "schedule": Constant(),
        "epochs": 6,
        **changes,
    }
    return Recipe(**fields)
