"""Is a picture that is shown turned, beside a label map, refused, since it is trained on as it is stored?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from engine.data import open_source
from engine.data.pictures.confined_decoding import confined_formats
from engine.errors import DataError
from engine.recipes import Data

LabelMapSet = Callable[..., Path]

NEEDS_AVIF = pytest.mark.skipif("AVIF" not in confined_formats(), reason="Pillow lacks AVIF")


def data(root: Path) -> Data:
    return Data(name="label_maps", root=str(root), batch_size=2, evaluation_batch_size=3)


def turn(root: Path, kind: str, orientation: int) -> Path:
    """Write a picture of the training in another format, with an EXIF orientation, and return its path."""
    path = root / "images/train/001.png"
    turned = path.with_suffix(f".{kind.lower()}")
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    picture = Image.open(path).copy()
    path.unlink()
    picture.save(turned, kind, exif=tags)
    return turned


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", pytest.param("AVIF", marks=NEEDS_AVIF)])
@pytest.mark.parametrize("orientation", [3, 6])
def test_it_is_refused_in_any_format(kind: str, orientation: int, tmp_path: Path, label_map_set: LabelMapSet) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    path = turn(root, kind, orientation)
    with pytest.raises(DataError, match=rf"^{path} has the EXIF orientation {orientation}: it is shown turned"):
        open_source(data(root), 0)


def test_it_is_named_with_all_else_that_cannot_be_used(tmp_path: Path, label_map_set: LabelMapSet) -> None:
    root = label_map_set(tmp_path, {"train": 3, "test": 1})
    turn(root, "JPEG", 8)
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(root / "labels/train/002.png")
    words = r"2 of 4 pictures cannot be used: .*001\.jpeg has the EXIF orientation 8: .*002\.png has 24 x 31 pixels"
    with pytest.raises(DataError, match=words):
        open_source(data(root), 0)


@pytest.mark.parametrize("upright", [True, False])
def test_it_is_taken_when_it_is_written_anew(upright: bool, tmp_path: Path, label_map_set: LabelMapSet) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    path = turn(root, "JPEG", 3)
    with pytest.raises(DataError, match=r"write it upright without this tag if .*, or remove the tag if the map"):
        open_source(data(root), 0)
    picture = Image.open(path)
    written = ImageOps.exif_transpose(picture) if upright else Image.fromarray(np.asarray(picture))
    written.save(path)
    assert_decoded_as_shown(root, path)


# 9 has no meaning; the image library turns the pixels of a TIFF itself.
@pytest.mark.parametrize(("kind", "orientation"), [("JPEG", 1), ("JPEG", 9), ("TIFF", 3)])
def test_pictures_that_are_decoded_as_they_are_shown_are_taken(
    kind: str, orientation: int, tmp_path: Path, label_map_set: LabelMapSet
) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    assert_decoded_as_shown(root, turn(root, kind, orientation))


def test_damaged_tags_say_nothing(tmp_path: Path, label_map_set: LabelMapSet) -> None:
    root = label_map_set(tmp_path, {"train": 2, "test": 1})
    path = turn(root, "JPEG", 3)
    content = path.read_bytes()
    assert content.count(b"Exif\0\0MM\0*") == 1
    path.write_bytes(content.replace(b"Exif\0\0MM\0*", b"Exif\0\0\xff\xff\xff\xff"))
    assert_decoded_as_shown(root, path)


def assert_decoded_as_shown(root: Path, path: Path) -> None:
    source = open_source(data(root), 0)
    (batch,) = source.evaluation_batches("train")
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(batch.images[1].transpose(1, 2, 0), shown)
    source.close()
