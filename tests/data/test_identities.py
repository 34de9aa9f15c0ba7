"""Are tables of identities, CSV or Parquet, read as they say, and is what contradicts itself refused or counted?"""

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
from engine.data.appearances import FURTHER, GALLERY, JUNK, QUERY, UNKNOWN_CAMERA
from engine.errors import DataError
from engine.recipes.data import Data
from experiments.omniglot import write_table
from tests.data.identity_sources import appearances, read

COLUMNS = ("image", "identity", "camera", "split")
ROWS = [
    *(("a.png", "tom", "left", "train"), ("b.png", "tom", "right", "train"), ("c.png", "ann", "left", "train")),
    *(("d.png", "zoe", "left", "query"), ("e.png", "zoe", "right", "gallery"), ("f.png", "kim", "left", "gallery")),
]


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
