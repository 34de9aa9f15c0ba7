"""Are columns and labels in Parquet that two readers could understand differently refused, and all others read?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from engine.data import Source
from engine.errors import DataError
from tests.data.parquet_tables import LABELS, Table, open_parquet


def labels_of(source: Source, split: str) -> list[int]:
    return [int(label) for batch in source.evaluation_batches(split) for label in batch.labels]


def first_pixels(source: Source, split: str) -> np.ndarray:
    return next(source.evaluation_batches(split)).images[0]


def test_labels_of_files_with_other_orders_are_read_by_name(table: Table, tmp_path: Path) -> None:
    pictures = table.pictures()
    table.write(tmp_path / "train.parquet", {"image": pictures, "label": LABELS}, ["cat", "dog"])
    table.write(tmp_path / "test.parquet", {"image": pictures, "label": LABELS}, ["dog", "cat"])
    source = open_parquet(tmp_path)
    assert source.facts.class_names == ("cat", "dog")
    assert labels_of(source, "train") == LABELS
    assert labels_of(source, "test") == [1 - label for label in LABELS]
    assert "test.parquet lists the classes as dog, cat: its labels are read by name" in source.inventory.survey.notes
    packed = open_parquet(tmp_path, limit=1)
    assert labels_of(packed, "test") == [1 - label for label in LABELS]
    packed.close()


def test_two_training_shards_with_other_orders(table: Table, tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        path = tmp_path / f"train-{number:05d}-of-00002.parquet"
        table.write(path, {"image": table.pictures(), "label": LABELS}, names)
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS})
    with pytest.raises(DataError, match=r"test.parquet names no classes, and the shards that do have them in several"):
        open_parquet(tmp_path)
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS}, ["cat", "dog"])
    source = open_parquet(tmp_path)
    assert labels_of(source, "train") == LABELS + [1 - label for label in LABELS]
    assert labels_of(source, "test") == LABELS


def test_other_names_are_refused_with_both_lists(table: Table, tmp_path: Path) -> None:
    table.write(tmp_path / "train.parquet", {"image": table.pictures(), "label": LABELS}, ["cat", "dog"])
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS}, ["dog", "wolf"])
    with pytest.raises(DataError, match=r"other classes in .*train.parquet \(cat, dog\) than in .*\(dog, wolf\)"):
        open_parquet(tmp_path)


def test_a_file_without_names_is_said(table: Table, tmp_path: Path) -> None:
    table.write(tmp_path / "train.parquet", {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS}, ["cat", "dog"])
    source = open_parquet(tmp_path)
    assert source.facts.class_names == ("cat", "dog")
    assert "train.parquet names no classes: the numbers are taken as those of test.parquet" in (
        source.inventory.survey.notes
    )


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"{", r"its `huggingface` metadata: is damaged: "),
        (b"[]", r"its `huggingface` metadata: is not what was expected"),
        (b'{"info": 3}', r"metadata, info: is not what was expected"),
        (b"[" * 100_000, r"metadata: is damaged"),
        (b'{"info": {"features": {"label": {"names": [1, 2]}}}}', r"class names in its `huggingface` metadata: is not"),
        (b'{"info": {"features": {"label": {"names": ["a", "a"]}}}}', r"hold 'a' twice"),
        (b'{"info": {"features": {"label": {"names": []}}}}', r"are none"),
        (b'{"info": {"features": {"label": {"names": ["\\ud800", "b"]}}}}', r"half of a character"),
    ],
)
def test_metadata_that_are_not_the_hubs(table: Table, tmp_path: Path, metadata: bytes, words: str) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": LABELS}, metadata=metadata)
    with pytest.raises(DataError, match=rf"parquet: .*{words}"):
        open_parquet(tmp_path)


def test_a_mask_is_never_taken_for_the_picture(table: Table, tmp_path: Path) -> None:
    masks, images = table.pictures(seed=1), table.pictures(seed=2)
    table.splits(tmp_path / "image", {"annotation": masks, "image": images, "label": LABELS})
    source = open_parquet(tmp_path / "image")
    expected = open_parquet(table.splits(tmp_path / "only", {"image": images, "label": LABELS}))
    np.testing.assert_array_equal(first_pixels(source, "train"), first_pixels(expected, "train"))
    assert source.inventory.survey.columns == {"image": "image", "label": "label"}
    assert source.inventory.survey.passed_over == ("annotation",)
    asked = open_parquet(tmp_path / "image", image_column="annotation")
    assert (first_pixels(asked, "train") != first_pixels(source, "train")).any()
    assert asked.facts.fingerprint != source.facts.fingerprint


def test_several_columns_of_pictures_are_for_the_user_to_choose(table: Table, tmp_path: Path) -> None:
    columns = {"left": table.pictures(seed=1), "right": table.pictures(seed=2, binary=True), "label": LABELS}
    table.splits(tmp_path, columns)
    with pytest.raises(DataError, match="has several columns of pictures, left, right, .*set data.image_column to one"):
        open_parquet(tmp_path)
    left, right = (open_parquet(tmp_path, image_column=name) for name in ("left", "right"))
    assert (first_pixels(left, "test") != first_pixels(right, "test")).any()
    with pytest.raises(DataError, match=r"data.image_column=label, but .* has no such column of pictures"):
        open_parquet(tmp_path, image_column="label")
    described = {"right": {"_type": "Image"}}
    source = open_parquet(table.splits(tmp_path, columns, features=described))
    assert source.inventory.survey.columns["image"] == "right"
    both = {"image": columns["left"], "img": columns["right"], "label": LABELS}
    with pytest.raises(DataError, match="several columns of pictures, image, img"):
        open_parquet(table.splits(tmp_path / "both", both))


TEXT = ["dog", "cat", "dog", "cat", "cat", "dog"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (TEXT, ("cat", "dog")),
        (pyarrow.array(TEXT).dictionary_encode(), ("cat", "dog")),
        (pyarrow.array(TEXT, pyarrow.large_string()), ("cat", "dog")),
        ([value == "dog" for value in TEXT], ("False", "True")),
    ],
)
def test_text_truth_and_categories_are_classes_in_sorted_order(
    table: Table, tmp_path: Path, values: Any, names: tuple[str, ...]
) -> None:
    # The numbers beside them were taken for the labels, since they are the only ones.
    columns = {"image": table.pictures(), "label": values, "image_id": list(range(6))}
    source = open_parquet(table.splits(tmp_path, columns))
    assert source.facts.class_names == names
    assert labels_of(source, "train") == [1, 0, 1, 0, 0, 1]
    assert "sorted order" in source.inventory.survey.names_from
    packed = open_parquet(tmp_path, limit=1)
    assert labels_of(packed, "test") == [1, 0, 1, 0, 0, 1]
    packed.close()


def test_text_follows_the_files_own_table(table: Table, tmp_path: Path) -> None:
    source = open_parquet(table.splits(tmp_path, {"image": table.pictures(), "label": TEXT}, names=["dog", "cat"]))
    assert source.facts.class_names == ("dog", "cat")
    assert labels_of(source, "test") == [0, 1, 0, 1, 1, 0]


def test_texts_are_compared_in_one_normal_form(table: Table, tmp_path: Path) -> None:
    texts = ["e\u0301", "\u00e9", "z", "z", "e\u0301", "z"]
    source = open_parquet(table.splits(tmp_path, {"image": table.pictures(), "label": texts}))
    assert source.facts.class_names == ("z", "\u00e9")
    assert labels_of(source, "train") == [1, 1, 0, 0, 1, 0]


def test_texts_that_are_no_classes(table: Table, tmp_path: Path) -> None:
    pictures = table.pictures()
    table.splits(tmp_path, {"image": pictures, "label": ["cat", "Cat ", "dog", "dog", "dog", "dog"]})
    with pytest.raises(DataError, match=r"'Cat ' and 'cat' in column label look like one class"):
        open_parquet(tmp_path)
    table.splits(tmp_path, {"image": pictures, "label": ["cat", "", "dog", None, "dog", ""]})
    with pytest.raises(DataError, match=r"1 rows of column label are empty"):
        open_parquet(tmp_path)
    table.splits(tmp_path, {"image": pictures, "label": TEXT})
    table.write(tmp_path / "test.parquet", {"image": pictures, "label": ["cat", "wolf", "dog", "dog", "dog", "ox"]})
    with pytest.raises(DataError, match=r"test.parquet: wolf, ox are no class of the training images, which have cat"):
        open_parquet(tmp_path)
    table.write(tmp_path / "test.parquet", {"image": pictures, "label": LABELS})
    with pytest.raises(DataError, match=r"train.parquet holds text as labels, but .*test.parquet whole numbers"):
        open_parquet(tmp_path)


def test_a_column_whose_values_are_all_different_is_no_label_by_guess(table: Table, tmp_path: Path) -> None:
    columns = {"image": table.pictures(), "name": list("abcdef"), "id": list(range(6))}
    table.splits(tmp_path, columns)
    with pytest.raises(DataError, match=r"none could \(name, id: another value in every row, so no class\).*label_col"):
        open_parquet(tmp_path)
    table.splits(tmp_path, columns | {"breed": TEXT})
    assert open_parquet(tmp_path).inventory.survey.columns["label"] == "breed"
    table.splits(tmp_path, columns | {"breed": TEXT, "camera": LABELS})
    with pytest.raises(DataError, match=r"each of breed, camera could .*set data.label_column"):
        open_parquet(tmp_path)
    assert open_parquet(tmp_path, label_column="camera").inventory.survey.passed_over == ("name", "id", "breed")
    features = {"camera": {"_type": "ClassLabel", "names": ["left", "right"]}}
    table.splits(tmp_path, columns | {"breed": TEXT, "camera": LABELS}, features=features)
    assert open_parquet(tmp_path).facts.class_names == ("left", "right")


def test_a_label_column_of_another_type_is_not_passed_over(table: Table, tmp_path: Path) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": [0.5] * 6, "other": LABELS})
    with pytest.raises(DataError, match=r"column label holds double, expected whole numbers, text.*data.label_column"):
        open_parquet(tmp_path)
    assert labels_of(open_parquet(tmp_path, label_column="other"), "train") == LABELS


def test_a_column_that_is_there_twice(table: Table, tmp_path: Path) -> None:
    names = ["image", "label", "label"]
    doubled = pyarrow.Table.from_arrays([table.pictures(), pyarrow.array(LABELS), pyarrow.array(LABELS)], names)
    for split in ("train", "test"):
        pyarrow.parquet.write_table(doubled, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="holds two columns called label"):
        open_parquet(tmp_path)


def test_columns_that_another_shard_lacks(table: Table, tmp_path: Path) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "test.parquet", {"picture": table.pictures(), "label": LABELS})
    with pytest.raises(DataError, match=r"test.parquet has no column image, which holds the pictures in .*train.parq"):
        open_parquet(tmp_path)
    table.write(tmp_path / "test.parquet", {"image": LABELS, "label": LABELS})
    with pytest.raises(DataError, match=r"test.parquet: column image is int64, but struct"):
        open_parquet(tmp_path)
    table.write(tmp_path / "test.parquet", {"image": table.pictures()})
    with pytest.raises(DataError, match=r"test.parquet: no row has a label .*no validation"):
        open_parquet(tmp_path)
    table.write(tmp_path / "validation.parquet", {"image": table.pictures(), "label": LABELS})
    assert "test*.parquet is not used: it has no labels, or -1 in every row" in (
        open_parquet(tmp_path).inventory.survey.notes
    )


def test_one_class_is_refused(table: Table, tmp_path: Path) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": [0] * 6}, names=["cat", "dog"])
    with pytest.raises(DataError, match="all training images of .* are of one class, cat"):
        open_parquet(tmp_path)


def test_numbers_that_do_not_fit(table: Table, tmp_path: Path) -> None:
    largest = pyarrow.array([2**64 - 1] * 6, pyarrow.uint64())
    table.splits(tmp_path, {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "validation.parquet", {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": largest})
    with pytest.raises(DataError, match=r"test.parquet, column label: is damaged"):  # it became -1: no label at all
        open_parquet(tmp_path)
