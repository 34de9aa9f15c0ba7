"""Is a split that lacks a shard, or has several versions of one, refused, and a whole series read in order?"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.readers.parquet import find_parquet
from engine.errors import DataError
from tests.data.parquet_tables import LABELS, Table, open_parquet

FINGERPRINTS = ("0a1b2c3d4e5f6071", "ffff2c3d4e5f6071")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"train-00000-of-00002-{FINGERPRINTS[0]}"], r"found 1 of 2 shards, train-00001-of-00002.parquet is missing"),
        ([f"train-00000-of-00001-{mark}" for mark in FINGERPRINTS], "holds several versions of one split"),
        (["train-00000-of-00001", f"train-00000-of-00001-{FINGERPRINTS[0]}"], "several versions of one split"),
        (["train-00000-of-00001", "train"], "several versions of one split"),
        (["train", "train_v2"], "several versions of one split, or files that are no numbered series: train.parquet"),
        (["train-a", "train-b"], "files that are no numbered series"),
        (["train-0-of-3", "train-2-of-3"], "found 2 of 3 shards, train-00001-of-00003.parquet is missing"),
        (["train_00000_of_00002"], "found 1 of 2 shards"),
        (["train-0", "train-2"], "none with number 1"),
        (["train.1", "train.2", "train.4"], "none with number 3"),
        (["train-1", "train-01"], "several versions of one split"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "several versions of one split"),
        (["train-00002-of-00002", "train-00000-of-00002"], "number 2 of 2 is there, expected 0 to 1"),
        (["train-00000-of-999999999"], "found 1 of 999999999 shards"),
        (["TRAIN-00000-of-00002"], "found 1 of 2 shards"),
    ],
)
def test_shards_that_are_missing_or_doubled(table: Table, tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        table.write(tmp_path / f"{name}.parquet", {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS})
    with pytest.raises(DataError, match=words):
        open_parquet(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [f"train-{number:05d}-of-00002-{FINGERPRINTS[number]}" for number in range(2)],
        ["train-0", "train-1"],
        ["train_1", "train_2"],
        ["train-9", "train-10", "train-11", "train-8", "train-7", "train-6", "train-5", "train-4", "train-3", "train-2"]
        + ["train-1"],
        ["train-v2"],
        ["train_2024"],
    ],
)
def test_whole_series_are_read_in_the_order_of_their_names(table: Table, tmp_path: Path, names: list[str]) -> None:
    for name in names:
        table.write(tmp_path / f"{name}.parquet", {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "test.parquet", {"image": table.pictures(), "label": LABELS})
    assert open_parquet(tmp_path).facts.sizes["train"] == 6 * len(names)
    # Not of their numbers: another order than that of earlier versions would be another set to runs that there are.
    assert find_parquet(tmp_path).files[-1].endswith(f"{max(names)}.parquet")


def test_two_words_for_one_split(table: Table, tmp_path: Path) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": LABELS})
    for name in ("val", "valid"):
        table.write(tmp_path / f"{name}.parquet", {"image": table.pictures(), "label": LABELS})
    with pytest.raises(DataError, match=r"several versions of one split.*val.parquet, valid.parquet"):
        open_parquet(tmp_path)


def test_what_lies_beside_the_shards_is_counted(table: Table, tmp_path: Path) -> None:
    root = table.splits(tmp_path / "set" / "data", {"image": table.pictures(), "label": LABELS}).parent
    (root / "README.md").write_text("x")
    (root / "data" / "unsupervised.parquet").write_text("x")
    (root / "other").mkdir()
    found = {left.reason: left.number for left in find_parquet(root).survey.left_out}
    assert found == {"files and folders beside the shards": 3}
    assert find_parquet(root).survey.sources == {"train": "data/train.parquet", "test": "data/test.parquet"}


def test_a_shard_that_is_no_file_is_not_passed_over(table: Table, tmp_path: Path) -> None:
    table.splits(tmp_path, {"image": table.pictures(), "label": LABELS})
    table.write(tmp_path / "val.parquet", {"image": table.pictures(), "label": LABELS})
    (tmp_path / "test.parquet").unlink()
    (tmp_path / "test.parquet").symlink_to("gone.parquet")
    with pytest.raises(DataError, match=r"test.parquet is called like a Parquet shard, but is a symbolic link to what"):
        open_parquet(tmp_path)
    (tmp_path / "test.parquet").unlink()
    (tmp_path / "test.parquet").mkdir()
    with pytest.raises(DataError, match=r"test.parquet is a folder, as Spark"):
        open_parquet(tmp_path)
