"""Are Parquet shards read in order, with the right columns, and refused in words when they are damaged?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from engine.data import Source, open_source
from engine.errors import DataError
from engine.recipes.data import Data

LABELS = np.arange(20) % 4


def open_parquet(root: Path, limit: int = 1 << 30, **fields: Any) -> Source:
    fields = {"batch_size": 4, "evaluation_batch_size": 6} | fields
    return open_source(Data(name="parquet", root=str(root), **fields), seed=5, stored_limit_bytes=limit)


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for number in range(3):
        rows = slice(number * 7, number * 7 + 7)
        path = folder / "data" / f"train-{number:05d}-of-00003.parquet"
        writers.parquet(path, writers.images(20, 10)[rows], LABELS[rows], image_column="image")
    writers.parquet(
        folder / "data" / "valid-00000-of-00001.parquet", writers.images(8, 10, seed=3), LABELS[:8], "image"
    )
    return folder


def test_shards_are_read_in_order(writers: Any, root: Path) -> None:
    source = open_parquet(root)
    images, labels = everything(source, "train")
    np.testing.assert_array_equal(images, writers.images(20, 10))
    np.testing.assert_array_equal(labels, LABELS)
    assert source.facts.class_names == ("0", "1", "2", "3")
    assert source.facts.sizes == {"train": 20, "test": 8}


def test_class_names_come_from_the_metadata(writers: Any, tmp_path: Path) -> None:
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", writers.images(8, 6), LABELS[:8], names=[*list("wxyz"), "none"])
    assert open_parquet(tmp_path, batch_size=5).facts.class_names == ("w", "x", "y", "z", "none")


def test_missing_and_double_shards(writers: Any, root: Path) -> None:
    (root / "data" / "train-00001-of-00003.parquet").rename(root / "data" / "kept")
    with pytest.raises(DataError, match=r"found 2 of 3 shards, train-00001-of-00003.parquet is missing"):
        open_parquet(root)
    (root / "data" / "kept").rename(root / "data" / "train-00001-of-00003.parquet")
    writers.parquet(root / "data" / "train-00000-of-00001.parquet", writers.images(4, 10), [0, 1, 2, 3], "image")
    with pytest.raises(DataError, match="several versions of one split"):
        open_parquet(root)


def test_ambiguous_folders_and_missing_test(writers: Any, root: Path) -> None:
    writers.parquet(root / "train.parquet", writers.images(4, 10), [0, 1, 2, 3])
    with pytest.raises(DataError, match=r"several folders hold train\*.parquet"):
        open_parquet(root)
    (root / "train.parquet").unlink()
    (root / "data" / "valid-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"holds train\*.parquet only, expected test\*, validation\* or valid\*"):
        open_parquet(root)
    with pytest.raises(DataError, match=r"expected train\*.parquet"):
        open_parquet(root / "nowhere")


def test_label_column_rule(writers: Any, tmp_path: Path) -> None:
    extra = {"other": [1] * 8}
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", writers.images(8, 6), LABELS[:8], "x", "mine", extra=extra)
    with pytest.raises(
        DataError, match=r"cannot tell which column.*mine \(int64\), other \(int64\).*data.label_column"
    ):
        open_parquet(tmp_path)
    np.testing.assert_array_equal(everything(open_parquet(tmp_path, label_column="mine"), "test")[1], LABELS[:8])
    with pytest.raises(DataError, match=r"data.label_column=nothing, but"):
        open_parquet(tmp_path, label_column="nothing")
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", writers.images(8, 6), LABELS[:8], "x", "only")
    np.testing.assert_array_equal(everything(open_parquet(tmp_path), "test")[1], LABELS[:8])


def test_plain_binary_column(writers: Any, tmp_path: Path) -> None:
    images = writers.images(8, 6)
    table = pyarrow.table({"png": [writers.png(image) for image in images], "label": LABELS[:8]})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    np.testing.assert_array_equal(everything(open_parquet(tmp_path), "test")[0], images)
    pyarrow.parquet.write_table(table.drop_columns(["png"]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column of pictures"):
        open_parquet(tmp_path)


def test_labels_with_gaps_and_out_of_range(writers: Any, root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        writers.parquet(tmp_path / "gap" / f"{split}.parquet", writers.images(6, 6), [0, 5, 9, 0, 5, 9])
    with pytest.raises(DataError, match="training labels are 0, 5, 9; expected 0 to C - 1"):
        open_parquet(tmp_path / "gap")
    writers.parquet(root / "data" / "valid-00000-of-00001.parquet", writers.images(3, 10), [0, 4, 1], "image")
    with pytest.raises(DataError, match=r"valid-00000-of-00001.parquet: image 1 has label 4, expected 0 to 3"):
        open_parquet(root)


def test_unlabelled_test_split_is_left_out(writers: Any, root: Path) -> None:
    writers.parquet(root / "data" / "test.parquet", writers.images(5, 10), [-1] * 5, "image")
    assert open_parquet(root).facts.sizes == {"train": 20, "test": 8}
    writers.parquet(root / "data" / "test.parquet", writers.images(5, 10), [0, 1, 2, 3, 0], "image")
    assert open_parquet(root).facts.sizes == {"train": 20, "validation": 8, "test": 5}


def test_pictures_outside_the_shard(writers: Any, tmp_path: Path) -> None:
    images = writers.images(8, 6)
    contents: list[dict[str, Any]] = [{"bytes": writers.png(image), "path": None} for image in images]
    contents[5] = {"bytes": None, "path": "five.png"}
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", images, LABELS[:8], contents=contents)
    with pytest.raises(DataError, match=r"parquet row 5 names 'five.png', which is not there"):
        open_parquet(tmp_path)
    (tmp_path / "five.png").write_bytes(writers.png(images[5]))
    (tmp_path / "six.png").write_bytes(writers.png(images[6]))
    found = open_parquet(tmp_path)
    np.testing.assert_array_equal(everything(found, "train")[0], images)
    left_out = {left.reason: left.examples for left in found.inventory.survey.left_out}
    assert left_out["pictures that no row names"] == ("six.png",)
    (tmp_path / "five.png").write_bytes(writers.png(images[6]))
    np.testing.assert_array_equal(everything(open_parquet(tmp_path), "train")[0][5], images[6])


def test_damaged_picture_and_damaged_shard(writers: Any, root: Path) -> None:
    contents = [{"bytes": writers.png(image), "path": None} for image in writers.images(7, 10)]
    contents[4]["bytes"] = contents[4]["bytes"][:60]
    shard = root / "data" / "train-00001-of-00003.parquet"
    writers.parquet(shard, writers.images(7, 10), LABELS[7:14], "image", contents=contents)
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet row 4 cannot be decoded"):
        open_parquet(root)
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet .*cannot be read as Parquet.*incomplete"):
        open_parquet(root)


def test_sets_that_are_too_large_are_packed_and_decoded_ahead(root: Path) -> None:
    stored = open_parquet(root, image_size=10)
    for _ in range(2):
        ahead = open_parquet(root, image_size=10, resize_size=10, limit=10)
        for split in ("train", "test"):
            for left, right in zip(everything(stored, split), everything(ahead, split), strict=True):
                np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(stored.batch(1, 2).images, ahead.batch(1, 2).images)
        ahead.close()
