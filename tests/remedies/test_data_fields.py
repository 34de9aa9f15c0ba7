"""Does what a refusal of fields of the images says, or of fields and networks for label maps, lead to a training?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import make_label_maps

Words = list[str]
Prose = list[tuple[str, str]]

ALL = "data.train_limit=null data.test_limit=null"
CASES: list[tuple[str, Prose]] = [
    ("data.class_names=a,b", []),
    ("data.augmentation.crop=[8,8] data.augmentation.crop_padding=0", []),
    ("data.augmentation.photometric_distortion=true", []),
    ("data.image_column=picture", []),
    (
        "data.stretch=true",
        [("give the one and leave the other out", "data.stretch=true data.image_size=16")],
    ),
    (
        "data.stretch=true data.image_size=16 data.resize_size=20",
        [("give the one and leave the other out", "data.image_size=16 data.resize_size=null")],
    ),
    ("data.first_size=[12,12]", []),
    (
        "data.first_size=[12,12] data.image_size=16 data.stretch=true data.augmentation.random_resized_crop=true "
        "data.augmentation.crop_padding=0",
        [],
    ),
    ("data.stretch=true data.image_size=16 data.name=synthetic data.num_classes=10", []),
    (
        f"data.name=synthetic data.num_classes=10 data.synthetic_images=4 data.batch_size=2 {ALL}",
        [("give more images", "data.synthetic_images=40"), (r"set (data\.num_classes) smaller", "{0}=4")],
    ),
    (
        f"data.batch_size=40 data.classes_per_batch=10 method.kind=mkf method.mixing_partners=second_batch {ALL}",
        [(r"leave (data\.classes_per_batch) out", "{0}=null")],
    ),
]


@pytest.mark.parametrize(("words", "prose"), [pytest.param(row[0].split(), row[1], id=row[0]) for row in CASES])
def test_fields_of_images(words: Words, prose: Prose, follow: Callable[..., None], start: Callable[..., None]) -> None:
    follow(start, words, prose)


def test_a_stem_for_segmentation(tmp_path: Path, follow: Callable[..., None], start: Callable[..., None]) -> None:
    root = make_label_maps(tmp_path / "maps", {"train": 2, "val": 1})
    words = ["data.name=label_maps", f"data.root={root}", "task.kind=segmentation", "method.kind=end_to_end"]
    words += ["data.train_limit=null", "data.test_limit=null", "data.batch_size=2", "data.augmentation.crop_padding=0"]
    words += ["backbone.name=fcn_resnet18", "backbone.widths=null", "backbone.stem=cifar"]
    follow(start, words)
