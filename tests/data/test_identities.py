"""Are pictures of identities read in every layout, and is what contradicts itself refused or counted by name?"""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from engine.data import open_source
from engine.data.appearances import (
    FURTHER,
    GALLERY,
    JUNK,
    QUERY,
    UNKNOWN_CAMERA,
    Appearances,
    is_packed,
    packed,
    unpacked,
)
from engine.data.market1501 import BOXES, GALLERIES, QUERIES, TRAIN
from engine.errors import DataError
from engine.recipes.data import Data
from experiments.omniglot import write_table

MARKET = {
    TRAIN: ["0002_c1s1_000451_03.jpg", "0002_c3s1_000551_01.jpg", "0007_c2s3_070952_01.jpg", "0007_c6s3_077367_05.jpg"],
    QUERIES: ["0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg"],
    GALLERIES: [
        *("-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c1s1_001051_03.jpg", "0001_c2s1_000301_00.jpg"),
        "0003_c1s6_015971_02.jpg",
    ],
}
DUKE = {
    TRAIN: ["0001_c2_f0046182.jpg", "0001_c1_f0044158.jpg", "0008_c3_f0000001.jpg", "0008_c2_f0000001.jpg"],
    QUERIES: ["0005_c2_f0046985.jpg"],
    GALLERIES: ["0005_c6_f0046985.jpg", "0009_c8_f0000002.jpg"],
}
COLUMNS = ("image", "identity", "camera", "split")
ROWS = [
    *(("a.png", "tom", "left", "train"), ("b.png", "tom", "right", "train"), ("c.png", "ann", "left", "train")),
    *(("d.png", "zoe", "left", "query"), ("e.png", "zoe", "right", "gallery"), ("f.png", "kim", "left", "gallery")),
]


def write(root: Path, names: dict[str, list[str]], writers: Any) -> Path:
    for folder, files in names.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(files):
            (root / folder / name).write_bytes(writers.png(writers.images(1, 16, number)[0], "JPEG"))
    return root


def read(root: Path, name: str = "market1501", **fields: Any) -> Any:
    return open_source(Data(name=name, root=str(root), batch_size=2, **fields), 0)  # type: ignore[arg-type]


def appearances(source: Any) -> Appearances:
    return unpacked(np.concatenate([batch.labels for batch in source.evaluation_batches("test")]))


def test_what_is_packed_is_found_again() -> None:
    given = Appearances(np.array([0, JUNK, 2**31 - 1]), np.array([UNKNOWN_CAMERA, 0, 2**16 - 2]), np.array([1, 2, 7]))
    labels = packed(given)
    found = unpacked(labels)
    assert labels.dtype == np.int64
    assert is_packed(labels)
    for field in ("identities", "cameras", "roles"):
        np.testing.assert_array_equal(getattr(found, field), getattr(given, field))


def test_classes_are_identities_that_are_looked_for_among_all_others() -> None:
    found = unpacked(np.array([3, 0, 3]))
    assert not is_packed(np.array([3, 0, 3]))
    assert found.identities.tolist() == [3, 0, 3]
    assert found.cameras.tolist() == [UNKNOWN_CAMERA] * 3
    assert found.roles.tolist() == [QUERY | GALLERY] * 3


def test_market_1501_as_it_is_downloaded(tmp_path: Path, writers: Any) -> None:
    root = write(tmp_path / "Market-1501-v15.09.15", MARKET, writers)
    (root / QUERIES / "Thumbs.db").write_bytes(b"no picture")
    (root / "gt_query").mkdir()
    source = read(tmp_path)
    assert source.facts.class_names == ("0002", "0007")
    labels = np.concatenate([batch.labels for batch in source.evaluation_batches("train")])
    assert labels.tolist() == [0, 0, 1, 1]
    found = appearances(source)
    assert found.identities.tolist() == [1, 3, JUNK, 0, 1, 1, 3]
    assert found.cameras.tolist() == [1, 4, 1, 1, 1, 2, 1]
    assert found.roles.tolist() == [QUERY] * 2 + [GALLERY] * 5
    lines = "\n".join(source.inventory.lines())
    assert "2 queries of 2 identities are looked for in a gallery of 4 pictures" in lines
    assert "1 pictures of the gallery are distractors" in lines
    assert "1 pictures of the gallery are junk" in lines
    assert "Thumbs.db" in lines
    assert "gt_query" in lines
    assert "2 identities" in lines


def test_hand_drawn_boxes_of_a_query_s_camera_are_further_pictures(tmp_path: Path, writers: Any) -> None:
    boxes = [
        *("0001_c1s1_001051_00.jpg", "0001_c1s1_001076_00.jpg", "0001_c2s1_000301_00.jpg", "0002_c1s1_000451_00.jpg"),
        *("0003_c1s6_015971_00.jpg", "cover.jpg"),
    ]
    source = read(write(tmp_path, MARKET | {BOXES: boxes}, writers))
    found = appearances(source)
    # As without them, and behind that: another camera and a training identity are of no use.
    assert found.identities.tolist() == [1, 3, JUNK, 0, 1, 1, 3, 1, 1]
    assert found.cameras.tolist() == [1, 4, 1, 1, 1, 2, 1, 1, 1]
    assert found.roles.tolist() == [QUERY] * 2 + [GALLERY] * 5 + [FURTHER] * 2
    lines = "\n".join(source.inventory.lines())
    assert "2 further pictures of the queries are averaged for the scores of multi_query" in lines
    assert "1 queries have no further picture by their camera, and stand for themselves there" in lines
    assert "3 pictures of gt_bbox/ show no query's identity by its camera, and are not read" in lines
    assert "1 pictures of gt_bbox/ have names that cannot be read, and are left out" in lines
    assert "in a gallery of 4 pictures" in lines


def test_duke_mtmc_reid_as_it_is_downloaded(tmp_path: Path, writers: Any) -> None:
    source = read(write(tmp_path, DUKE, writers))
    assert source.facts.class_names == ("0001", "0008")
    assert appearances(source).cameras.tolist() == [2, 6, 8]


def test_pictures_that_are_decoded_ahead_are_the_same(tmp_path: Path, writers: Any) -> None:
    root = write(tmp_path, MARKET, writers)
    kept = read(root, image_size=(16, 8))
    data = Data(name="market1501", root=str(root), batch_size=2, image_size=(16, 8))
    ahead = open_source(data, 0, stored_limit_bytes=10)
    for one, other in zip(kept.evaluation_batches("test"), ahead.evaluation_batches("test"), strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    ahead.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({QUERIES: None}, r"lacks the folder query, expected bounding_box_train, query, bounding_box_test"),
        ({QUERIES: []}, r"query holds no pictures"),
        (
            {TRAIN: [*MARKET[TRAIN], "person.jpg"]},
            r"1 pictures have names without an identity and a camera: person.jpg",
        ),
        ({TRAIN: [*MARKET[TRAIN], "0003_c1s1_000001_00.jpg"]}, r"the identity 3: in the training set and among"),
        ({QUERIES: ["0000_c1s1_001051_00.jpg"]}, r"query: 1 pictures have the identity 0000, which means distractors"),
        ({TRAIN: [*MARKET[TRAIN], "-1_c1s1_001051_00.jpg"]}, r"bounding_box_train: 1 pictures .* means junk"),
        ({GALLERIES: MARKET[GALLERIES][:3]}, r"none of the 2 queries has another picture of its identity"),
    ],
)
def test_what_contradicts_itself_is_refused(
    changes: dict[str, list[str] | None], said: str, tmp_path: Path, writers: Any
) -> None:
    names = {folder: files for folder, files in (MARKET | changes).items() if files is not None}
    with pytest.raises(DataError, match=said):
        read(write(tmp_path, names, writers))


def test_no_folder_of_it_and_several_copies(tmp_path: Path, writers: Any) -> None:
    with pytest.raises(DataError, match="no set in Market-1501's layout"):
        read(tmp_path)
    for name in ("one", "two"):
        write(tmp_path / name, MARKET, writers)
    with pytest.raises(DataError, match="several folders hold bounding_box_train"):
        read(tmp_path)


def test_queries_without_a_match_are_counted_by_name(tmp_path: Path, writers: Any) -> None:
    source = read(write(tmp_path, MARKET | {GALLERIES: MARKET[GALLERIES][:4]}, writers))
    assert "1 queries have no match in the gallery and are not scored: the identity 3" in "\n".join(
        source.inventory.lines()
    )


def test_a_part_of_the_gallery_is_refused(tmp_path: Path, writers: Any) -> None:
    with pytest.raises(DataError, match=r"data.test_limit=3, but in a part of the gallery everything is easier"):
        read(write(tmp_path, MARKET, writers), test_limit=3)


def table(root: Path, writers: Any, rows: list[tuple[str, ...]] = ROWS, columns: tuple[str, ...] = COLUMNS) -> Path:
    root.mkdir(exist_ok=True)
    for number, row in enumerate(ROWS):
        (root / row[0]).write_bytes(writers.png(writers.images(1, 12, number)[0]))
    with (root / "people.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return root


def parquet(path: Path, writers: Any, columns: dict[str, list[Any]]) -> None:
    number = len(next(iter(columns.values())))
    images = [{"bytes": writers.png(image), "path": None} for image in writers.images(number, 12)]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, **columns}), path, row_group_size=2)


def test_a_table_in_csv_and_in_parquet(tmp_path: Path, writers: Any) -> None:
    listed = read(table(tmp_path / "csv", writers), "identities")
    (tmp_path / "parquet").mkdir()
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS) if place}
    parquet(tmp_path / "parquet" / "people.parquet", writers, columns)
    held = read(tmp_path / "parquet", "identities")
    for source in (listed, held):
        assert source.facts.class_names == ("ann", "tom")
        assert source.facts.sizes == {"train": 3, "test": 3}
        found = appearances(source)
        assert found.identities.tolist() == [1, 1, 0]
        assert found.cameras.tolist() == [1, 2, 1]
        assert found.roles.tolist() == [QUERY, GALLERY, GALLERY]
        labels = np.concatenate([batch.labels for batch in source.evaluation_batches("train")])
        assert labels.tolist() == [1, 1, 0]


def test_of_several_columns_of_pictures_one_is_named(tmp_path: Path, writers: Any) -> None:
    images = writers.images(12, 12)
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS) if place}
    pictures = {"face": images[:6], "body": images[6:]}
    columns |= {name: [writers.png(image) for image in found] for name, found in pictures.items()}
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "parquet" / "people.parquet")
    with pytest.raises(DataError, match="several columns of pictures, face, body, .* set data.image_column to one of"):
        read(tmp_path / "parquet", "identities")
    root = table(
        tmp_path / "csv", writers, [(*row, ROWS[-1 - at][0]) for at, row in enumerate(ROWS)], (*COLUMNS, "other")
    )
    listed = np.concatenate([writers.images(1, 12, number) for number in range(6)])
    expected = pictures | {"image": listed, "other": listed[::-1]}
    for folder, column in (("parquet", "face"), ("parquet", "body"), ("csv", "image"), ("csv", "other")):
        source = read(tmp_path / folder, "identities", image_column=column)
        found = np.concatenate([batch.images for batch in source.evaluation_batches("test")])
        np.testing.assert_array_equal(found, expected[column][3:])
        assert f"columns read: {column} (image), identity (identity)" in "\n".join(source.inventory.lines())
    with pytest.raises(DataError, match="no column mask, found image"):
        read(root, "identities", image_column="mask")


def test_only_what_no_row_names_is_said_to_be_unused(tmp_path: Path, writers: Any) -> None:
    root = table(tmp_path / "set", writers, [*ROWS[:2], ("./more/c.png", *ROWS[2][1:]), *ROWS[3:]])
    (root / "more").mkdir()
    (root / "c.png").rename(root / "more" / "c.png")
    assert not [line for line in read(root, "identities").inventory.lines() if "not used" in line]
    (root / "notes.txt").write_text("who took them")
    lines = "\n".join(read(root, "identities").inventory.lines())
    assert "not used: 1 files and folders beside the table (notes.txt)" in lines
    for unnamed in ("spare.png", "more/e.jpg", "other/f.png", "more/notes.txt", ".trash"):
        (root / unnamed).parent.mkdir(exist_ok=True)
        (root / unnamed).write_bytes(b"x")
    (root / "again").symlink_to(root / "more")
    lines = "\n".join(read(root, "identities").inventory.lines())
    assert "not used: 2 pictures that no row names (spare.png, more/e.jpg)" in lines
    assert "not used: 3 files and folders beside the table (notes.txt, other, more/notes.txt)" in lines
    assert "not used: 1 hidden files and folders (.trash)" in lines


def test_a_table_that_says_something_else_is_another_set_however_large(tmp_path: Path, writers: Any) -> None:
    """Names and sizes of all files, names of the identities and numbers of pictures stay as they are."""
    tables = {
        "as it is": ROWS,
        "elsewhere": ROWS,
        "a camera": changed(5, "camera", "back"),
        "an identity": changed(5, "identity", "zoe"),
        "roles": [*ROWS[:3], (*ROWS[3][:3], "gallery"), (*ROWS[4][:3], "query"), ROWS[5]],
        "pictures": [ROWS[0], ("c.png", *ROWS[1][1:]), ("b.png", *ROWS[2][1:]), *ROWS[3:]],
    }
    found = {}
    for name, rows in tables.items():
        root = table(tmp_path / name, writers, rows)
        data = Data(name="identities", root=str(root), batch_size=2, image_size=12)
        with contextlib.closing(open_source(data, 0, stored_limit_bytes=10)) as source:
            found[name] = source.facts.fingerprint
    assert found["as it is"] == found.pop("elsewhere")
    assert len(set(found.values())) == len(tables) - 1


@pytest.mark.parametrize("layout", ["csv", "parquet"])
def test_junk_among_names_is_junk(layout: str, tmp_path: Path, writers: Any) -> None:
    rows = changed(5, "identity", "-1")
    if layout == "csv":
        table(tmp_path / "set", writers, rows)
    else:
        (tmp_path / "set").mkdir()
        columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS) if place}
        parquet(tmp_path / "set" / "people.parquet", writers, columns)
    source = read(tmp_path / "set", "identities")
    assert appearances(source).identities.tolist() == [0, 0, JUNK]
    lines = "\n".join(source.inventory.lines())
    assert "1 queries of 1 identities are looked for in a gallery of 1 pictures" in lines
    assert "1 pictures of the gallery are junk" in lines


@pytest.mark.parametrize(
    ("place", "said"), [(2, "1 training pictures have the identity -1"), (3, "1 queries have the")]
)
def test_junk_among_names_is_in_the_gallery_only(place: int, said: str, tmp_path: Path, writers: Any) -> None:
    with pytest.raises(DataError, match=said):
        read(table(tmp_path / "set", writers, changed(place, "identity", "-1")), "identities")


def test_further_pictures_and_unknown_cameras_of_a_table_are_counted(tmp_path: Path, writers: Any) -> None:
    rows = [*ROWS, ("a.png", "zoe", "left", "further"), ("b.png", "kim", "left", "further")]
    rows[5] = (*ROWS[5][:2], "-1", "gallery")
    source = read(table(tmp_path / "set", writers, rows), "identities")
    found = appearances(source)
    assert found.roles.tolist() == [QUERY, GALLERY, GALLERY, FURTHER, FURTHER]
    assert found.cameras.tolist() == [1, 2, UNKNOWN_CAMERA, 1, 1]
    lines = "\n".join(source.inventory.lines())
    assert "1 further pictures of the queries are averaged" in lines
    assert "1 further pictures show no query's identity by its camera, and have no influence" in lines
    assert "stand for themselves" not in lines
    assert "1 pictures have the camera -1, which means that it is not known" in lines
    numbers = [(image, identity, "-1" if identity == "kim" else "3", split) for image, identity, _, split in ROWS]
    numbers[4] = (*ROWS[4][:2], "4", "gallery")
    source = read(table(tmp_path / "numbers", writers, numbers), "identities")
    assert appearances(source).cameras.tolist() == [3, 4, UNKNOWN_CAMERA]
    assert "1 pictures have the camera -1, which means" in "\n".join(source.inventory.lines())
    numbers[5] = (*ROWS[5][:2], "-2", "gallery")
    with pytest.raises(DataError, match="found the number -2 among the cameras, expected -1 to 65,534"):
        read(table(tmp_path / "less", writers, numbers), "identities")


def test_the_pictures_of_a_table_are_those_of_its_rows(tmp_path: Path, writers: Any) -> None:
    mixed = [ROWS[at] for at in (3, 0, 4, 1, 5, 2)]
    columns = {name: [row[place] for row in mixed] for place, name in enumerate(COLUMNS) if place}
    parquet(tmp_path / "people.parquet", writers, columns)
    expected = writers.images(6, 12)
    for limit in (1 << 30, 10):
        data = Data(name="identities", root=str(tmp_path), batch_size=3, image_size=12, resize_size=12)
        source = open_source(data, 0, stored_limit_bytes=limit)
        images = np.concatenate([batch.images for batch in source.evaluation_batches("test")])
        np.testing.assert_array_equal(images, expected[[0, 2, 4]])
        source.close()


def test_files_named_by_their_split_and_no_cameras(tmp_path: Path, writers: Any) -> None:
    parquet(tmp_path / "train-00000-of-00001.parquet", writers, {"identity": [5, 5, 9]})
    parquet(tmp_path / "test-00000-of-00001.parquet", writers, {"identity": [1, 1, 3]})
    source = read(tmp_path, "identities")
    found = appearances(source)
    assert found.roles.tolist() == [QUERY | GALLERY] * 3
    assert found.cameras.tolist() == [UNKNOWN_CAMERA] * 3
    lines = "\n".join(source.inventory.lines())
    assert "cameras are not known" in lines
    assert "1 queries have no match in the gallery and are not scored: the identity 3" in lines


def changed(place: int, column: str, value: str) -> list[tuple[str, ...]]:
    rows = [list(row) for row in ROWS]
    rows[place][COLUMNS.index(column)] = value
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (ROWS, ("image", "person", "camera", "split"), "no column identity, found image, person, camera, split"),
        (
            changed(1, "split", "training"),
            COLUMNS,
            "row 2: column split holds 'training', expected one of train, query",
        ),
        (changed(1, "image", "gone.png"), COLUMNS, "1 pictures are not there, the first in row 2: gone.png"),
        (changed(1, "camera", ""), COLUMNS, "row 2: column camera is empty"),
        (
            changed(3, "identity", "tom"),
            COLUMNS,
            "identity tom: in the training set .*, or, where each split",
        ),
        (changed(3, "split", "gallery"), COLUMNS, "found pictures of train, gallery, expected train with query and"),
        (changed(3, "split", "test"), COLUMNS, "train, gallery, test|train, query, gallery"),
        ([*ROWS, ("a.png", "tom", "left")], COLUMNS, "row 7: has 3 fields, expected 4"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(
    rows: list[tuple[str, ...]], columns: tuple[str, ...], said: str, tmp_path: Path, writers: Any
) -> None:
    with pytest.raises(DataError, match=said):
        read(table(tmp_path / "csv", writers, rows, columns), "identities")


def test_two_readings_of_one_folder_are_refused(tmp_path: Path, writers: Any) -> None:
    root = table(tmp_path / "csv", writers)
    parquet(root / "train.parquet", writers, {"identity": [1, 2]})
    with pytest.raises(DataError, match="several tables, people.csv, train.parquet: keep one"):
        read(root, "identities")
    both = tmp_path / "both"
    both.mkdir()
    for name in ("train", "test"):
        parquet(both / f"{name}.parquet", writers, {"identity": [1, 2], "split": ["query", "gallery"]})
    with pytest.raises(DataError, match="is named like the train split, and has a column split"):
        read(both, "identities")
    with pytest.raises(DataError, match="no table of identities"):
        read(tmp_path / "nothing", "identities")


def test_omniglot(real_data: Path, tmp_path: Path) -> None:
    """Characters of both small sets are the same pictures: that is found, and mended by leaving them out."""
    folder = real_data / "omniglot"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    with pytest.raises(DataError, match="the identities Greek/character01, .* and 45 more: in the training set"):
        read(folder, "identities", image_size=28, label_column="name")
    assert write_table(folder, tmp_path) == (2720, 2120, 1000)
    source = read(tmp_path, "identities", image_size=28)
    assert source.facts.sizes == {"train": 2720, "test": 2120}
    assert source.facts.num_classes == 136
    found = appearances(source)
    assert len(np.unique(found.identities)) == 106
    assert sorted(np.unique(found.cameras)) == list(range(1, 21))
    assert FURTHER not in found.roles
