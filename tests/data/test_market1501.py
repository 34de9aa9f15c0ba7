"""Are folders in Market-1501's layout read as downloaded, and what contradicts itself refused or counted?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import open_source
from engine.data.appearances import FURTHER, GALLERY, JUNK, QUERY, UNKNOWN_CAMERA, unpacked
from engine.data.readers.market1501 import BOXES, GALLERIES, QUERIES, TRAIN
from engine.errors import DataError
from engine.recipes.data import Data
from tests.data.identity_sources import appearances, read

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


def write(root: Path, names: dict[str, list[str]], writers: Any) -> Path:
    for folder, files in names.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(files):
            (root / folder / name).write_bytes(writers.png(writers.images(1, 16, number)[0], "JPEG"))
    return root


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


def test_held_out_pictures_have_no_camera_which_is_said(tmp_path: Path, writers: Any) -> None:
    write(tmp_path, MARKET, writers)
    source = read(tmp_path, validation_fraction=0.5)
    (held_out,) = source.evaluation_batches("validation")
    assert (unpacked(held_out.labels).cameras == UNKNOWN_CAMERA).all()
    said = "held-out images have training identities, of which no cameras are kept"
    assert said in "\n".join(source.inventory.lines())
    assert said not in "\n".join(read(tmp_path).inventory.lines())


def test_a_part_of_the_gallery_is_refused(tmp_path: Path, writers: Any) -> None:
    with pytest.raises(DataError, match=r"data.test_limit=3, but in a part of the gallery everything is easier"):
        read(write(tmp_path, MARKET, writers), test_limit=3)
