"""Are folders of pictures read in byte order, in all layouts, and refused in words?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data import Source, open_source
from engine.errors import DataError
from engine.recipes.data import Data


def open_folder(root: Path, limit: int = 1 << 30, **fields: Any) -> Source:
    fields = {"batch_size": 4, "evaluation_batch_size": 3} | fields
    return open_source(Data(name="folder", root=str(root), **fields), seed=5, stored_limit_bytes=limit)


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


def classes(writers: Any, number: int = 4, seed: int = 0, side: int = 12) -> dict[str, np.ndarray]:
    return {name: writers.images(number, side, seed + place) for place, name in enumerate(("Zebra", "ant", "bee"))}


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    writers.folder(tmp_path / "set", "train", classes(writers))
    return writers.folder(tmp_path / "set", "val", classes(writers, 2, seed=9))


def test_order_is_class_then_file_name_by_bytes(writers: Any, root: Path) -> None:
    source = open_folder(root)
    assert source.facts.class_names == ("Zebra", "ant", "bee")  # capitals come first
    assert source.facts.sizes == {"train": 12, "test": 6}
    images, labels = everything(source, "train")
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(images, np.concatenate(list(classes(writers).values())))


def test_statistics_are_those_of_the_training_images(writers: Any, root: Path) -> None:
    facts = open_folder(root).facts
    values = np.concatenate(list(classes(writers).values())) / 255
    assert facts.mean == pytest.approx(tuple(values.mean(axis=(0, 2, 3))), abs=1e-13)
    assert facts.std == pytest.approx(tuple(values.std(axis=(0, 2, 3))), abs=1e-13)


def test_hidden_and_other_files_are_ignored(root: Path) -> None:
    before = open_folder(root).facts.fingerprint
    for name in ("Thumbs.db", ".DS_Store", "._Zebra_0.png", "boxes.txt"):
        (root / "train" / "Zebra" / name).write_bytes(b"no picture")
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "notes.txt").write_text("hello")
    assert open_folder(root).facts.fingerprint == before


def test_empty_and_duplicate_class(writers: Any, root: Path) -> None:
    (root / "train" / "cat").mkdir()
    with pytest.raises(DataError, match=r"train/cat holds no pictures.*remove the class from every split"):
        open_folder(root)
    (root / "train" / "cat").rmdir()
    (root / "train" / "Ant").mkdir()
    with pytest.raises(DataError, match="Ant and ant look like one class in two folders"):
        open_folder(root)


def test_classes_of_both_splits_must_agree(writers: Any, root: Path) -> None:
    writers.folder(root, "val", {"wasp": writers.images(1, 12)})
    with pytest.raises(DataError, match=r"val \(4\) differ from those of train \(3\): unexpected: wasp"):
        open_folder(root)


def test_missing_folders(tmp_path: Path, writers: Any) -> None:
    with pytest.raises(DataError, match=r"train/CLASS/PICTURE.*does not exist"):
        open_folder(tmp_path / "nowhere")
    writers.folder(tmp_path, "train", classes(writers))
    with pytest.raises(DataError, match="holds train/ only, expected val/, valid/ or test/"):
        open_folder(tmp_path)
    writers.folder(tmp_path, "val", classes(writers))
    writers.folder(tmp_path, "valid", classes(writers))
    with pytest.raises(DataError, match="holds val and valid, expected one of them"):
        open_folder(tmp_path)


def test_own_validation_and_test(writers: Any, root: Path) -> None:
    writers.folder(root, "test", classes(writers, 1, seed=20))
    source = open_folder(root)
    assert source.facts.sizes == {"train": 12, "validation": 6, "test": 3}
    np.testing.assert_array_equal(everything(source, "test")[0], np.concatenate(list(classes(writers, 1, 20).values())))
    with pytest.raises(DataError, match="brings 6 validation images of its own: set it to 0"):
        open_folder(root, validation_fraction=0.5)


def test_damaged_picture_is_named(root: Path) -> None:
    path = root / "train" / "bee" / "bee_2.png"
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(DataError, match=r"train/bee/bee_2.png cannot be decoded"):
        open_folder(root)


def test_sizes_that_vary_need_an_image_size(writers: Any, root: Path) -> None:
    (root / "train" / "bee" / "bee_2.png").write_bytes(writers.png(writers.images(1, 20)[0]))
    with pytest.raises(
        DataError, match=r"bee_2.png has 20 x 20 pixels, but .*Zebra_0.png has 12 x 12.*data.image_size"
    ):
        open_folder(root)
    assert open_folder(root, image_size=16).facts.image_shape == (3, 16, 16)
    (root / "train" / "bee" / "bee_2.png").unlink()
    with pytest.raises(DataError, match=r"more than the 100 that are kept decoded: set data.image_size"):
        open_folder(root, limit=100)
    for path in root.glob("*/*/*.png"):
        Image.new("RGB", (60, 60)).save(path)
    encoded = sum(path.stat().st_size for path in root.glob("*/*/*.png"))
    with pytest.raises(DataError, match=r"need 118,800 bytes when decoded, more than the"):
        open_folder(root, limit=encoded)


def test_splits_of_different_size(writers: Any, tmp_path: Path) -> None:
    writers.folder(tmp_path, "train", classes(writers, side=12))
    writers.folder(tmp_path, "val", classes(writers, side=14))
    with pytest.raises(DataError, match="test images are 14 x 14 pixels, but the training images are 12 x 12"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("mode", "pixel"), [("L", 90), ("CMYK", (10, 20, 30, 40)), ("RGBA", (1, 2, 3, 4)), ("P", 7), ("1", 1)]
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str, pixel: Any) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            kind = "JPEG" if mode == "CMYK" else "PNG"
            # A PNG called .JPEG, and the other way round, occur in ImageNet.
            Image.new(mode, (8, 8), pixel).save(tmp_path / split / name / "x.JPEG", format=kind)
    images, _ = everything(open_folder(tmp_path, batch_size=2), "train")
    assert images.shape == (2, 3, 8, 8)
    if mode == "L":
        assert (images == 90).all()


def test_sixteen_bit_pictures_are_refused(root: Path) -> None:
    Image.fromarray(np.full((12, 12), 40_000, dtype=np.uint16)).save(root / "train" / "bee" / "bee_1.png")
    with pytest.raises(DataError, match=r"bee_1.png has more than 8 bits per channel"):
        open_folder(root)


def write_tiny(writers: Any, root: Path, sorted_again: bool = False) -> Path:
    identities = {"n03": writers.images(3, 8, 1), "n01": writers.images(3, 8, 2)}
    writers.folder(root, "train", identities, inside="images")
    (root / "wnids.txt").write_text("n03\nn01\n")
    (root / "words.txt").write_text("n01\tgoldfish\nn02\tunused\nn03\tbus, coach\n")
    (root / "train" / "n03" / "n03_boxes.txt").write_text("n03_0.png\t0\t0\t1\t1\n")
    validation = writers.images(4, 8, 3)
    if sorted_again:
        return writers.folder(root, "val", {"n03": validation[:1], "n01": validation[1:]})
    pictures = root / "val" / "images"
    pictures.mkdir(parents=True)
    lines = []
    for number, name in enumerate(("n03", "n01", "n01", "n01")):
        (pictures / f"val_{number}.png").write_bytes(writers.png(validation[number]))
        lines.append(f"val_{number}.png\t{name}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    (root / "test" / "images" / "test_0.png").write_bytes(writers.png(validation[0]))
    return root


@pytest.mark.parametrize("sorted_again", [False, True])
def test_tiny_imagenet(writers: Any, tmp_path: Path, sorted_again: bool) -> None:
    source = open_folder(write_tiny(writers, tmp_path, sorted_again), batch_size=2)
    assert source.facts.class_names == ("goldfish", "bus, coach")  # sorted ids, not the order of wnids.txt
    assert source.facts.sizes == {"train": 6, "test": 4}
    images, labels = everything(source, "test")
    np.testing.assert_array_equal(labels, [0, 0, 0, 1])
    np.testing.assert_array_equal(images, writers.images(4, 8, 3)[[1, 2, 3, 0]])


@pytest.mark.parametrize("limit", [1 << 30, 10])
def test_a_corrected_annotation_changes_the_labels_and_the_set(writers: Any, tmp_path: Path, limit: int) -> None:
    root = write_tiny(writers, tmp_path)
    labels, fingerprints = [], set()
    # The order of the pictures and all sizes stay the same.
    for names in (("n01", "n01", "n01", "n03"), ("n01", "n01", "n03", "n03")):
        lines = "".join(f"val_{number}.png\t{name}\n" for number, name in enumerate(names))
        (root / "val" / "val_annotations.txt").write_text(lines)
        source = open_folder(root, limit, image_size=8)
        labels.append(everything(source, "test")[1].tolist())
        fingerprints.add(source.facts.fingerprint)
        source.close()
    assert labels == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert len(fingerprints) == 2


def test_tiny_imagenet_incomplete(writers: Any, tmp_path: Path) -> None:
    root = write_tiny(writers, tmp_path)
    (root / "val" / "images" / "val_2.png").unlink()
    with pytest.raises(DataError, match=r"val_annotations.txt line 3 names .*val_2.png, which is missing"):
        open_folder(root)
    (root / "wnids.txt").write_text("n03\nn01\nn07\n")
    with pytest.raises(DataError, match="missing: n07"):
        open_folder(root)


def test_flat_validation_folder_of_imagenet(writers: Any, root: Path, tmp_path: Path) -> None:
    writers.folder(tmp_path / "flat", "train", classes(writers))
    (tmp_path / "flat" / "val").mkdir()
    (tmp_path / "flat" / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(writers.png(writers.images(1)[0]))
    with pytest.raises(DataError, match=r"val is flat: its pictures carry no class.*ground truth"):
        open_folder(tmp_path / "flat")


def test_num_classes_must_agree(root: Path) -> None:
    with pytest.raises(DataError, match=r"data.num_classes=7, but folder has 3 classes"):
        open_folder(root, num_classes=7)


def test_resized_pictures_keep_their_aspect(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(wide).save(tmp_path / split / name / "x.png")
    images, _ = everything(open_folder(tmp_path, batch_size=2, image_size=10), "test")
    assert (images == 200).all()  # the central square


def test_decoded_ahead_without_crops_equals_the_stored_images(root: Path) -> None:
    stored = open_folder(root, image_size=12)
    ahead = open_folder(root, image_size=12, resize_size=12, limit=10)
    assert ahead.facts.mean == (0.485, 0.456, 0.406)
    assert not ahead.facts.cropped_while_decoding
    for epoch, step in ((0, 0), (0, 1), (2, 1), (0, 0)):
        left, right = stored.batch(epoch, step), ahead.batch(epoch, step)
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.indices, right.indices)
    np.testing.assert_array_equal(everything(stored, "test")[0], everything(ahead, "test")[0])
    ahead.close()


def test_decoded_ahead_crops_are_a_function_of_seed_epoch_and_step(root: Path) -> None:
    fields: dict[str, Any] = {"image_size": 8, "augmentation": {"random_resized_crop": True}, "limit": 10}
    first, second = open_folder(root, **fields), open_folder(root, **fields)
    assert first.facts.cropped_while_decoding
    expected = {place: first.batch(*place).images for place in ((0, 0), (0, 1), (0, 2), (1, 0))}
    for place in ((1, 0), (0, 2), (0, 0), (0, 1)):
        np.testing.assert_array_equal(second.batch(*place).images, expected[place])
    whole = open_folder(root, image_size=8, limit=10)
    assert (whole.batch(0, 0).images != expected[0, 0]).any()
    assert whole.facts.sizes == first.facts.sizes
    # Evaluation is not cropped at random; by default the shorter side becomes 8 * 8 // 7.
    image, _ = everything(first, "test")
    with Image.open(root / "val" / "Zebra" / "Zebra_0.png") as picture:
        nine = np.asarray(picture.convert("RGB").resize((9, 9), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image[0], nine[0:8, 0:8].transpose(2, 0, 1))
    for source in (first, second, whole):
        source.close()


def test_a_relative_root_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = open_folder(root).facts.fingerprint
    monkeypatch.chdir(root.parent)
    assert open_folder(Path(root.name)).facts.fingerprint == fingerprint
    assert os.getcwd() == str(root.parent)
