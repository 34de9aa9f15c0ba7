"""Are images of which none could be found refused before a network is trained, and others taken?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engine
from engine.benchmarking.batches import read_images
from engine.errors import DataError
from engine.recipes import Backbone, Data, EndToEnd, Recipe, Retrieval, load_recipe
from engine.training.session import Session

IN_PROCESS = engine.Plan(executor="process")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data.validation_fraction=0.005"],
            r"data.validation_fraction=0.005 holds out \d images: at most one validation image of each class, .* needs "
            r"a class with two validation images: hold out more, or set data.validation_fraction=0",
        ),
        (
            ["data.test_limit=10"],
            r"data.test_limit=10 leaves 10 images: at most one test image of each class, .* give a larger limit",
        ),
    ],
)
def test_parts_in_which_nothing_can_be_found_are_refused_before_the_training(
    words: list[str], said: str, tmp_path: Path
) -> None:
    digits, _ = engine.apply_overrides(load_recipe("end_to_end_digits"), IN_PROCESS, words)
    recipe = dataclasses.replace(digits, task=Retrieval())
    with pytest.raises(DataError, match=said):
        engine.train(recipe, IN_PROCESS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with Session(digits, IN_PROCESS) as classified:
        assert classified.source.facts.sizes["train"] > 0


def test_what_is_measured_without_the_pictures_can_be_found(tmp_path: Path) -> None:
    """There are more identities than images that a measurement needs."""
    words = [f"data.root={tmp_path}", "data.image_size=[16,8]", "data.augmentation.crop_padding=0"]
    recipe, _ = engine.apply_overrides(load_recipe("end_to_end_market1501_resnet50"), IN_PROCESS, words)
    found = read_images(recipe)
    assert found.described.startswith("random images of 3 x 16 x 8")
    assert found.facts.num_classes == 751


def test_one_class_with_two_pictures_is_enough() -> None:
    digits, _ = engine.apply_overrides(load_recipe("end_to_end_digits"), IN_PROCESS, ["data.test_limit=11"])
    with Session(dataclasses.replace(digits, task=Retrieval()), IN_PROCESS) as session:
        assert sorted(np.bincount(session.source.labels_of("test")).tolist()) == [1] * 9 + [2]


def test_a_set_with_one_picture_of_each_class_is_refused(tmp_path: Path) -> None:
    for place in range(4):
        for split in ("train", "train", "test"):
            folder = tmp_path / "set" / split / str(place)
            folder.mkdir(parents=True, exist_ok=True)
            picture = np.full((16, 8, 3), 60 * place, dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{len(list(folder.iterdir()))}.png")
    recipe = Recipe(
        name="folder",
        method=EndToEnd(),
        backbone=Backbone(name="resnet8", widths=(4, 8, 8)),
        data=Data(name="folder", root=str(tmp_path / "set"), batch_size=4, image_size=(16, 8)),
        task=Retrieval(),
    )
    with pytest.raises(DataError, match="data.name=folder has 4 test images: at most one test image of each class"):
        engine.train(recipe, IN_PROCESS, tmp_path / "run")
