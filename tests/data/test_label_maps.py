"""Are pictures and label maps read in pairs, with the classes of a table, and is all else refused by name?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import open_source
from engine.data.readers.class_tables import IGNORED
from engine.errors import DataError, RecipeError
from engine.recipes import Augmentation, Data

NAMES = ("sky", "road", "car")


def data(root: Path, **changes: object) -> Data:
    return Data(**{"name": "label_maps", "root": str(root), "batch_size": 2, "evaluation_batch_size": 3, **changes})


def test_all_pairs_are_read_in_order(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 5, "val": 3, "test": 4})
    source = open_source(data(root), 0)
    facts = source.facts
    assert (facts.num_classes, facts.class_names, facts.image_shape) == (3, NAMES, (3, 24, 32))
    assert facts.label_maps
    assert facts.sizes == {"train": 5, "validation": 3, "test": 4}
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        batches = list(source.evaluation_batches(split))
        images = np.concatenate([batch.images for batch in batches])
        labels = np.concatenate([batch.labels for batch in batches])
        for place in range(facts.sizes[split]):
            stem = f"{folder}/{place:03}.png"
            assert np.array_equal(images[place].transpose(1, 2, 0), np.asarray(Image.open(root / "images" / stem)))
            assert np.array_equal(labels[place], np.asarray(Image.open(root / "labels" / stem)))
    batch = source.batch(0, 1)
    assert batch.labels.dtype == np.uint8
    whole = np.concatenate([batch.labels for batch in source.evaluation_batches("train")])
    assert np.array_equal(batch.labels, whole[batch.indices])
    source.close()


def test_what_was_found_is_said(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 2, "val": 1})
    (root / "licence.txt").write_text("")
    inventory = open_source(data(root), 0).inventory
    text = "\n".join(inventory.lines())
    assert "data: pictures with label maps" in text
    assert "train from images/train/ and labels/train/: 2 pictures, " in text
    assert "of the pixels in a class, 16.7% in none" in text
    assert "val/ is the test set: there is no test/ with label maps" in text
    assert "1 files and folders beside images/ and labels/ (licence.txt)" in text
    found = json.loads(json.dumps(inventory.to_json()))
    assert found["pictures"]["train"] == {"all": 2}
    assert sum(found["pixels"]["train"]["of_each_class"]) + found["pixels"]["train"]["without_a_class"] == 2 * 24 * 32


def test_a_table_translates_values(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    plain = open_source(data(root), 0)
    for path in root.glob("labels/*/*.png"):
        labels = np.asarray(Image.open(path))
        # A palette, whose colours mean nothing, and values of the user's own.
        Image.fromarray(np.array([7, 8, 11, *[0] * 252, 3], np.uint8)[labels]).convert("P").save(path)
    (root / "classes.txt").unlink()
    (root / "classes.csv").write_text("Value,name,colour\n7,sky,blue\n3,,\n8,road,grey\n11,car,red\n12,car,red\n")
    translated = open_source(data(root), 0)
    assert translated.facts.class_names == NAMES
    # As many classes and the same ones: equal labels, equal fingerprint.
    assert translated.facts.fingerprint == plain.facts.fingerprint


def break_value(root: Path) -> None:
    path = root / "labels/train/001.png"
    labels = np.asarray(Image.open(path)).copy()
    labels[5, :4] = 9
    Image.fromarray(labels).save(path)


def break_size(root: Path) -> None:
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(root / "labels/train/001.png")


def break_colours(root: Path) -> None:
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / "labels/train/001.png")


def break_depth(root: Path) -> None:
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(root / "labels/train/001.png")


def break_shades(root: Path) -> None:
    path = root / "labels/train/001.png"
    Image.fromarray(np.asarray(Image.open(path)) > 0).save(path)


def break_format(root: Path) -> None:
    path = root / "labels/train/001.png"
    Image.open(path).save(path, format="JPEG")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            break_value,
            r"labels/train/001\.png has values that are not in the table of classes: 9 \(4 pixels\); the table",
        ),
        (break_size, r"001\.png has 24 x 31 pixels, but its picture .*images/train/001\.png has 24 x 32; give"),
        (break_colours, r"001\.png is a colour picture \(mode RGB\), expected a label map: one channel"),
        (break_depth, r"001\.png has more than 8 bits per channel"),
        (
            break_shades,
            r"001\.png is grey with a depth of 1, whose values may be classes or shades up to white",
        ),
        (break_format, r"001\.png is a label map in JPEG, which does not keep or name its values; expected PNG"),
        (
            lambda root: (root / "labels/train/001.png").unlink(),
            r"1 of 3 pictures have no label map of the same name: .*images/train/001\.png; add the maps, or remove",
        ),
        (
            lambda root: (root / "images/test/000.png").unlink(),
            r"1 label maps have no picture of the same name: .*labels/test/000\.png; add the pictures, or remove",
        ),
        (
            lambda root: Image.new("RGB", (32, 24)).save(root / "images/train/001.bmp"),
            r"images/train/001\.bmp and .*images/train/001\.png have the same name: it is open which of them is meant",
        ),
        (
            lambda root: (root / "classes.txt").unlink(),
            r"holds no table of classes: give classes\.txt, .*, or classes\.csv .*, or data\.class_names",
        ),
        (
            lambda root: (root / "classes.csv").write_text("value,name\n"),
            r"holds classes\.csv and classes\.txt: two tables of classes; keep one",
        ),
        (lambda root: (root / "classes.txt").write_text("sky\nroad\nSky\n"), r"sky and Sky look like one class"),
        (
            lambda root: (root / "images/train").rename(root / "images/training"),
            r"no pictures with label maps below data\.root=.*: expected images/train/PICTURE with labels/train/PICTURE",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    damage: Callable[[Path], object], message: str, tmp_path: Path, label_map_set: Callable[..., Path]
) -> None:
    root = label_map_set(tmp_path, {"train": 3, "test": 1})
    damage(root)
    with pytest.raises(DataError, match=message):
        open_source(data(root), 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,value\nsky,0", r"classes\.csv line 1: found name,value, expected the columns value,name"),
        ("value,name\n0,sky\n0,road", r"classes\.csv line 3: value 0 is in an earlier line"),
        ("value,name\n300,sky", r"classes\.csv line 2: found '300,sky', expected a value from 0 to 255"),
        ("value,name\n255,void", r"line 2: value 255 is named 'void', but always means a pixel without a class"),
        ("value,name\n0,sky", r"classes\.csv: found 1 classes, expected 2 to 254"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(
    table: str, message: str, tmp_path: Path, label_map_set: Callable[..., Path]
) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1}, table=False)
    (root / "classes.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        open_source(data(root), 0)


def test_names_of_the_recipe_stand_in_for_a_table_or_agree_with_it(
    tmp_path: Path, label_map_set: Callable[..., Path]
) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    with pytest.raises(DataError, match=r"data\.class_names=a,b,c, but .*classes\.txt names sky,road,car: leave"):
        open_source(data(root, class_names=("a", "b", "c")), 0)
    (root / "classes.txt").unlink()
    assert open_source(data(root, class_names=("a", "b", "c")), 0).facts.class_names == ("a", "b", "c")


def test_pictures_of_evaluation_may_have_another_size(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 2})
    label_map_set(root, {"test": 2}, size=(40, 64))
    source = open_source(data(root), 0)
    assert source.facts.image_shape == (3, 24, 32)
    (batch,) = source.evaluation_batches("test")
    assert batch.images.shape == (2, 3, 40, 64)


def test_fields_that_have_no_meaning_are_refused(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 4, "test": 1})
    with pytest.raises(RecipeError, match=r"data\.augmentation\.crop is for sets with label maps, such as"):
        open_source(Data(name="digits", augmentation=Augmentation(crop=(8, 8))), 0)
    with pytest.raises(RecipeError, match=r"data\.class_names is for sets with label maps"):
        open_source(Data(name="digits", class_names=("a", "b")), 0)
    with pytest.raises(RecipeError, match=r"data\.labelled_fraction: training on pictures without their label maps is"):
        open_source(data(root, labelled_fraction=0.5), 0)
    source = open_source(data(root, labelled_fraction=0.5, unlabelled="drop"), 0)
    assert source.facts.sizes["train"] == source.facts.labelled_images == 2


def test_subsets_and_held_out_pictures_keep_their_maps(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 8, "test": 4})
    whole = np.stack([np.asarray(Image.open(path)) for path in sorted(root.glob("labels/train/*.png"))])
    source = open_source(data(root, train_limit=3, test_limit=2, validation_fraction=0.25), 0)
    assert source.facts.sizes == {"train": 3, "validation": 2, "test": 2}
    (batch,) = source.evaluation_batches("validation")
    assert np.array_equal(batch.labels, whole[batch.indices])


def cityscapes(label_map_set: Callable[..., Path], root: Path, kind: str) -> Path:
    identifiers = np.full(256, 0, np.uint8)
    identifiers[[0, 1, 2]] = (23, 7, 26) if kind == "labelIds" else (10, 0, 13)
    identifiers[255] = 4 if kind == "labelIds" else 255
    made = label_map_set(root / "made", {"train": 2, "val": 1})
    for split in ("train", "val"):
        for path in sorted((made / "images" / split).glob("*.png")):
            name = f"aachen/aachen_000000_{path.stem}019"
            for place in ("leftImg8bit", "gtFine"):
                (root / place / split / "aachen").mkdir(parents=True, exist_ok=True)
            path.replace(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png")
            labels = np.asarray(Image.open(made / "labels" / split / path.name))
            Image.fromarray(identifiers[labels]).save(root / f"gtFine/{split}/{name}_gtFine_{kind}.png")
            Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / f"gtFine/{split}/{name}_gtFine_color.png")
            (root / f"gtFine/{split}/{name}_gtFine_polygons.json").write_text("{}")
    return root


def test_cityscapes_gives_the_same_labels_from_both_kinds_of_maps(
    tmp_path: Path, label_map_set: Callable[..., Path]
) -> None:
    found = []
    for kind in ("labelIds", "labelTrainIds"):
        root = cityscapes(label_map_set, tmp_path / kind, kind)
        source = open_source(data(root, name="cityscapes"), 0, strict_counts=False)
        assert source.facts.class_names[0] == "road"
        assert source.facts.num_classes == 19
        assert source.facts.sizes == {"train": 2, "test": 1}
        (batch,) = source.evaluation_batches("train")
        assert set(np.unique(batch.labels)) == {0, 10, 13, IGNORED}
        assert f"the labels are read from *_gtFine_{kind}.png" in "\n".join(source.inventory.lines())
        found.append(batch.labels)
    assert np.array_equal(*found)


def test_an_incomplete_cityscapes_is_refused(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = cityscapes(label_map_set, tmp_path, "labelIds")
    with pytest.raises(DataError, match=r"train: found 2 pictures, expected 2,975; the copy is incomplete"):
        open_source(data(root, name="cityscapes"), 0)
    next((root / "gtFine/train/aachen").glob("*labelIds.png")).unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures have no label map of the same name: .*_leftImg8bit\.png"):
        open_source(data(root, name="cityscapes"), 0, strict_counts=False)
