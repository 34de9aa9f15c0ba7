"""Are folders read as ImageFolder reads them, names compared as text, and all that is left out counted or refused?"""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data import Source, open_source
from engine.data.confined_decoding import CONFINED_FORMATS
from engine.data.decoding import PICTURE_FORMATS
from engine.data.folder import find_folder
from engine.data.picture_files import ENDINGS
from engine.errors import DataError
from engine.recipes.data import Data


def open_folder(root: Path, **fields: Any) -> Source:
    return open_source(Data(name="folder", root=str(root), **({"batch_size": 2} | fields)), seed=5)


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    for split, number in (("train", 3), ("val", 2)):
        classes = {name: writers.images(number, 8, seed) for seed, name in enumerate(("cat", "dog"))}
        writers.folder(tmp_path / "set", split, classes)
    return tmp_path / "set"


def left_out(root: Path) -> dict[str, int]:
    return {left.reason: left.number for left in find_folder(root).survey.left_out}


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


def names_of(root: Path) -> tuple[str, ...]:
    return open_folder(root).facts.class_names


def test_names_are_compared_in_one_normal_form(writers: Any, tmp_path: Path) -> None:
    for split, form in (("train", "NFD"), ("val", "NFC")):
        classes = {unicodedata.normalize(form, name): writers.images(2, 8) for name in ("Äpfel", "zebra")}
        writers.folder(tmp_path, split, classes)
    assert names_of(tmp_path) == ("zebra", unicodedata.normalize("NFC", "Äpfel"))
    (tmp_path / "train" / "äpfel").mkdir()
    with pytest.raises(DataError, match="look like one class in two folders"):
        open_folder(tmp_path)


def copied(writers: Any, root: Path, form: str) -> Path:
    """Write a set whose classes, folders and files come in another order where marks stand behind their letters."""
    for split in ("train", "val"):
        for seed, parts in enumerate(
            (
                ("Äpfel", "é.png"),
                ("Äpfel", "f.png"),
                ("Äpfel", "ö", "b.png"),
                ("Äpfel", "z", "a.png"),
                ("zebra", "ü.png"),
            )
        ):
            path = root / split / unicodedata.normalize(form, "/".join(parts))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(writers.png(writers.images(1, 8, seed)[0]))
    return root


def test_copies_in_another_normal_form_have_the_same_classes_and_the_same_order(writers: Any, tmp_path: Path) -> None:
    composed, decomposed = (open_folder(copied(writers, tmp_path / form, form)) for form in ("NFC", "NFD"))
    assert composed.facts.class_names == decomposed.facts.class_names == ("zebra", "Äpfel")
    for split in ("train", "test"):
        for found, other in zip(everything(composed, split), everything(decomposed, split), strict=True):
            np.testing.assert_array_equal(found, other)
    # As the bytes of composed names are ordered, which is what a set with such names has always had.
    expected = [writers.images(1, 8, seed)[0] for seed in (4, 1, 0, 3, 2)]
    np.testing.assert_array_equal(everything(composed, "train")[0], expected)


def test_names_that_are_no_utf8_are_text(writers: Any, tmp_path: Path) -> None:
    for split, name in (("train", os.fsdecode(b"caf\xe9")), ("val", "café")):
        try:
            writers.folder(tmp_path, split, {name: writers.images(2, 8), "dog": writers.images(2, 8)})
        except OSError:
            pytest.skip("this file system takes no such names")
        for path in (tmp_path / split / name).iterdir():
            path.rename(path.with_name(os.fsdecode(b"\xff\xfe") + path.name[-5:]))
    source = open_folder(tmp_path)
    assert source.facts.class_names == ("café", "dog")
    assert all(line.isprintable() for line in source.inventory.lines())
    assert source.facts.sizes == {"train": 4, "test": 4}


def write_tiny(writers: Any, root: Path) -> Path:
    writers.folder(
        root, "train", {name: writers.images(3, 8, seed) for seed, name in enumerate(("n1", "né"))}, "images"
    )
    (root / "val" / "images").mkdir(parents=True)
    for number, image in enumerate(writers.images(4, 8, 9)):
        (root / "val" / "images" / f"é{number}.png").write_bytes(writers.png(image))
    lines = [f"é{number}.png\t{('n1', 'né')[number % 2]}\t0\t0\t7\t7\n" for number in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("né\nn1\n")
    (root / "words.txt").write_text("n1\tfish\nné\tcafé, bar\nn9\tother\n")
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_in_every_encoding(writers: Any, tmp_path: Path, encoding: str, form: str, line_end: str) -> None:
    root = write_tiny(writers, tmp_path)
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        text = (root / name).read_text().replace("\n", line_end)
        text = unicodedata.normalize(form, text) if encoding != "latin-1" else text
        (root / name).write_bytes(text.encode(encoding))
    source = open_folder(root)
    assert source.facts.class_names == ("fish", "café, bar")
    np.testing.assert_array_equal(everything(source, "test")[1], [0, 0, 1, 1])
    np.testing.assert_array_equal(everything(source, "test")[0], writers.images(4, 8, 9)[[0, 2, 1, 3]])
    assert source.inventory.survey.names_from == "named by words.txt"


def test_lists_that_can_be_understood_in_two_ways(writers: Any, tmp_path: Path) -> None:
    root = write_tiny(writers, tmp_path)
    annotations = root / "val" / "val_annotations.txt"
    whole = annotations.read_text()
    annotations.write_text(whole + "é0.png\tné\t0\t0\t7\t7\n")
    with pytest.raises(DataError, match=r"val_annotations.txt line 5 names é0.png, as line 1 does"):
        open_folder(root)
    annotations.write_text(whole.partition("\n")[2])
    assert left_out(root)["pictures that val_annotations.txt does not name"] == 1
    annotations.write_text(whole)
    words = root / "words.txt"
    words.write_text(words.read_text() + "n1\tbird\n")
    with pytest.raises(DataError, match=r"words.txt line 4 calls n1 'bird', an earlier line 'fish'"):
        open_folder(root)
    words.write_text("n1\tfish\n")
    assert find_folder(root).survey.names_from == "named by words.txt (1 that it lacks by their folders)"


def test_a_huge_or_endless_list_is_refused(writers: Any, tmp_path: Path) -> None:
    root = write_tiny(writers, tmp_path / "tiny")
    with (root / "words.txt").open("r+b") as file:
        file.truncate(20 << 30)
    with pytest.raises(DataError, match=r"words.txt: has 21,474,836,480 bytes; expected at most"):
        open_folder(root)
    (root / "words.txt").unlink()
    os.mkfifo(root / "words.txt")
    assert open_folder(root).facts.class_names == ("n1", "né")
    assert left_out(root) == {"files and folders beside the splits": 1}


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
