"""Are folders read as ImageFolder reads them, and is all that is left out counted or refused?"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.pictures.confined_decoding import CONFINED_FORMATS
from engine.data.pictures.decoding import PICTURE_FORMATS
from engine.data.pictures.picture_files import ENDINGS
from engine.data.readers.folder import find_folder
from engine.errors import DataError
from tests.data.folder_sources import everything, left_out, open_folder


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    for split, number in (("train", 3), ("val", 2)):
        classes = {name: writers.images(number, 8, seed) for seed, name in enumerate(("cat", "dog"))}
        writers.folder(tmp_path / "set", split, classes)
    return tmp_path / "set"


def test_folders_below_a_class_belong_to_it(writers: Any, root: Path) -> None:
    for name, seed in (("cat", 10), ("dog", 20)):
        for place, folder in enumerate(("day2", "day2/noon", "a b")):
            (root / "train" / name / folder).mkdir(parents=True)
            for number, image in enumerate(writers.images(2, 8, seed + place)):
                (root / "train" / name / folder / f"{number}.png").write_bytes(writers.png(image))
    source = open_folder(root)
    assert source.facts.sizes == {"train": 18, "test": 4}
    # As torchvision's make_dataset walks.
    expected = [
        (label, os.path.join(folder, name))
        for label, name in enumerate(("cat", "dog"))
        for folder, _, files in sorted(os.walk(root / "train" / name, followlinks=True))
        for name in sorted(files)
    ]
    images, labels = everything(source, "train")
    np.testing.assert_array_equal(labels, [label for label, _ in expected])
    for image, (_, path) in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(path)))


def test_a_class_whose_pictures_are_all_nested(writers: Any, root: Path) -> None:
    (root / "train" / "cat" / "deep" / "deeper").mkdir(parents=True)
    for path in sorted((root / "train" / "cat").glob("*.png")):
        path.rename(root / "train" / "cat" / "deep" / "deeper" / path.name)
    assert find_folder(root).survey.left_out == ()
    np.testing.assert_array_equal(everything(open_folder(root), "train")[0][:3], writers.images(3, 8, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "QOI", "SGI"])
def test_pictures_are_known_by_content_where_the_ending_is_unknown(root: Path, kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(content, format=kind)
    if kind == "DIB":  # a BMP without its first header has nothing to be known by
        content = io.BytesIO()
        Image.new("RGB", (8, 8), (10, 20, 30)).save(content, format="BMP")
    (root / "train" / "cat" / "without_ending").write_bytes(content.getvalue())
    (root / "train" / "dog" / "picture.jpg_large").write_bytes(content.getvalue())
    assert open_folder(root).facts.sizes["train"] == 8


def test_every_format_that_is_decoded_is_found() -> None:
    assert set(ENDINGS) == {*PICTURE_FORMATS, *CONFINED_FORMATS}


@pytest.mark.parametrize("ending", [".jpe", ".JFIF", ".pbm", ".pnm", ".dib", ".ras", ".apng"])
def test_endings_of_the_image_library(root: Path, ending: str) -> None:
    Image.new("RGB", (8, 8)).save(root / "train" / "cat" / f"x{ending}", format="PNG")
    assert open_folder(root).facts.sizes["train"] == 7


def test_what_is_left_out_is_counted_and_said(root: Path) -> None:
    for name in ("notes.txt", "Thumbs.db", "picture.heic", "BM.txt", "P5 is a format.md"):
        (root / "train" / "cat" / name).write_bytes(name.encode() + b" and more than thirty-two bytes of text")
    (root / "train" / "cat" / "._0.png").write_bytes(b"x")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "stray.png").write_bytes(b"x")
    (root / "extra").mkdir()
    os.mkfifo(root / "train" / "dog" / "pipe")
    source = open_folder(root)
    assert left_out(root) == {
        "hidden files and folders": 2,
        "pictures outside of the folders of classes": 1,
        "files that are no pictures by name or content": 4,
        "pictures in a format that is not read, to be converted to PNG": 1,
        "pipes, sockets and devices": 1,
        "files and folders beside the splits": 1,
    }
    assert source.inventory.lines()[0] == f"data: folders of pictures in {root}"
    assert "  train from train/: 6 pictures, 3 in each class" in source.inventory.lines()
    assert "  test from val/: 4 pictures, 2 in each class" in source.inventory.lines()
    assert "  2 classes, named by their folders: cat, dog" in source.inventory.lines()
    assert any(
        "4 files that are no pictures" in line and "train/cat/BM.txt" in line for line in source.inventory.lines()
    )
    values = source.inventory.to_json()
    assert values["pictures"] == {
        "train": {"all": 6, "of_each_class": [3, 3]},
        "test": {"all": 4, "of_each_class": [2, 2]},
    }
    assert values["sources"] == {"train": "train/", "test": "val/"}
    assert open_folder(root).inventory == source.inventory  # also where the images come from the cache


def test_a_pipe_called_like_a_picture_is_refused_and_not_read(root: Path) -> None:
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png is called like a picture, but is no regular file"):
        open_folder(root)


def test_links_that_lead_nowhere_are_named_together(root: Path) -> None:
    (root / "train" / "cat" / "zz.png").symlink_to("gone.png")
    (root / "train" / "dog" / "a.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"cat/zz.png -> gone.png, .*dog/a.png -> gone.png: symbolic links to what is"):
        open_folder(root)
    (root / "train" / "cat" / "zz.png").unlink()
    (root / "train" / "dog" / "a.png").unlink()
    (root / "train" / "wolf").symlink_to("../../moved")
    with pytest.raises(DataError, match=r"wolf -> ../../moved: symbolic links to what is not there"):
        open_folder(root)


def test_a_folder_that_would_count_twice_is_refused(root: Path) -> None:
    (root / "train" / "cat" / "again").symlink_to(root / "train" / "cat")
    with pytest.raises(DataError, match="again is the same folder as .*train/cat: its pictures would count twice"):
        open_folder(root)
    (root / "train" / "cat" / "again").unlink()
    (root / "train" / "kitten").symlink_to("cat")
    with pytest.raises(DataError, match="is the same folder as"):
        open_folder(root)


def test_links_to_folders_and_pictures_elsewhere_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "train" / "cat").rename(tmp_path / "cats")
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    (tmp_path / "one.png").write_bytes((tmp_path / "cats" / "cat_0.png").read_bytes())
    (root / "train" / "dog" / "one.png").symlink_to(tmp_path / "one.png")
    assert open_folder(root).facts.sizes["train"] == 7


def test_one_class_is_refused(writers: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        writers.folder(tmp_path, split, {"images": writers.images(4, 8)})
    with pytest.raises(DataError, match=r"holds one class only, images, .* classes at the wrong level\?"):
        open_folder(tmp_path)
    for split in ("train", "val"):
        writers.folder(tmp_path / "deep", f"{split}/images", {name: writers.images(4, 8) for name in ("cat", "dog")})
    with pytest.raises(DataError, match=r"holds one class only, images, .*; it holds cat, dog\. Are"):
        open_folder(tmp_path / "deep")


def test_splits_at_the_wrong_level(writers: Any, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"holds no train/, but set/ does: set data.root={tmp_path}/set"):
        open_folder(tmp_path)
    by_class = tmp_path / "by_class"
    for name in ("cat", "dog"):
        writers.folder(by_class, name, {"train": writers.images(2, 8), "val": writers.images(2, 8)})
    with pytest.raises(
        DataError, match=r"at the wrong level, train/ is in each of cat, dog\. If these are the classes"
    ):
        open_folder(by_class)
    mixed = tmp_path / "mixed"
    writers.folder(mixed, "train", {"train": writers.images(2, 8), "val": writers.images(2, 8)})
    writers.folder(mixed, "val", {"train": writers.images(2, 8), "val": writers.images(2, 8)})
    with pytest.raises(DataError, match=r"folders of .*train are called train, val: the splits are at the wrong level"):
        open_folder(mixed)
    (root / "train").rename(root / "Train")
    with pytest.raises(DataError, match="holds Train, but no train/; rename it"):
        open_folder(root)


def test_splits_inside_of_a_class_would_train_on_test_pictures(writers: Any, root: Path) -> None:
    writers.folder(root, "train/cat", {"test": writers.images(2, 8)})
    with pytest.raises(DataError, match=r"train/cat holds test: the splits are at the wrong level"):
        open_folder(root)


def test_a_test_folder_with_other_classes_is_not_dropped(writers: Any, root: Path) -> None:
    writers.folder(root, "test", {"Cat": writers.images(1, 8), "Dog": writers.images(1, 8)})
    with pytest.raises(DataError, match=r"the classes of .*test \(2\) differ from those of train"):
        open_folder(root)


def test_unlabelled_test_pictures_are_counted(writers: Any, root: Path) -> None:
    writers.folder(root, "test", {"images": writers.images(3, 8)})
    assert left_out(root) == {"pictures of test/, which carry no class": 3}
    assert find_folder(root).survey.notes == ("val/ is the test set: the pictures of test/ carry no class",)
    (root / "val").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"test: its pictures carry no class, and there is no val/"):
        open_folder(root)


@pytest.mark.parametrize("closed", ["", "train", "train/cat", "val", "val/dog"])
def test_folders_that_may_not_be_read_are_named(root: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    # As root, whom nothing is forbidden, a mode of 000 would change nothing.
    ordinary = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == root / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return ordinary(path)

    def listdir(path: Any = ".") -> list[str]:
        with scandir(path) as entries:
            return [entry.name for entry in entries]

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(DataError, match=rf"^{root / closed}: may not be read by this user"):
        open_folder(root)
