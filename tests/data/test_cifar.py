"""Are all layouts of CIFAR read exactly, and all damaged ones refused in words?"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Source, cache_root, class_names, open_source
from engine.data.readers.pickles import read_pickle
from engine.errors import DataError
from engine.recipes.data import Data

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def small_set(writers: Any, classes: int = 10, train: int = 40, test: int = 20) -> Splits:
    return {
        "train": (writers.images(train, seed=1), np.arange(train) * 7 % classes),
        "test": (writers.images(test, seed=2), np.arange(test) * 3 % classes),
    }


def write(writers: Any, layout: str, root: Path, name: str, splits: Splits) -> Path:
    if layout == "python":
        return writers.cifar_python(root, name, splits)
    if layout == "binary":
        return writers.cifar_binary(root, name, splits)
    inside = {"parquet": "", "parquet-inside": "plain_text"}[layout]
    column = "fine_label" if name == "cifar100" else "label"
    for split, (images, labels) in splits.items():
        extra = {"coarse_label": [0] * len(labels)} if name == "cifar100" else None
        path = root / inside / f"{split}-00000-of-00001.parquet"
        writers.parquet(path, images, labels, label_column=column, extra=extra)
    return root


def open_small(root: Path, name: str = "cifar10", **fields: Any) -> Source:
    classes = {"cifar10": 10, "cifar100": 100}[name]
    fields = {"batch_size": min(16, classes), "evaluation_batch_size": 7} | fields
    recipe = Data(**{"name": name, "root": str(root), **fields})
    return open_source(recipe, seed=0, strict_counts=False)


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 40), ("cifar100", 100, 200)])
@pytest.mark.parametrize("layout", ["python", "binary", "parquet", "parquet-inside"])
def test_pixels_and_labels_survive(
    writers: Any, tmp_path: Path, layout: str, name: str, classes: int, train: int
) -> None:
    splits = small_set(writers, classes, train, 20)
    source = open_small(write(writers, layout, tmp_path / "set", name, splits), name)
    assert source.facts.num_classes == classes
    assert source.facts.image_shape == (3, 32, 32)
    for split, (images, labels) in splits.items():
        found_images, found_labels = everything(source, split)
        np.testing.assert_array_equal(found_images, images)
        np.testing.assert_array_equal(found_labels, labels)
        assert found_labels.dtype == np.int64


def test_all_layouts_give_one_content_and_one_fingerprint(writers: Any, tmp_path: Path) -> None:
    splits = small_set(writers)
    fingerprints = set()
    for layout in ("python", "binary", "parquet"):
        fingerprints.add(open_small(write(writers, layout, tmp_path / layout, "cifar10", splits)).facts.fingerprint)
    assert len(fingerprints) == 1
    manifests = [json.loads(path.read_text()) for path in cache_root().glob("*/manifest.json")]
    assert len(manifests) == 3
    assert len({manifest["splits"]["train"]["sha256"] for manifest in manifests}) == 1
    splits["train"][0][0, 0, 0, 0] ^= 1
    changed = open_small(write(writers, "binary", tmp_path / "changed", "cifar10", splits))
    assert changed.facts.fingerprint not in fingerprints


def test_root_may_be_the_folder_itself(writers: Any, tmp_path: Path) -> None:
    root = writers.cifar_python(tmp_path, "cifar10", small_set(writers))
    assert open_small(root / "cifar-10-batches-py").facts.sizes == {"train": 40, "test": 20}


def test_published_normalisation_of_infopro(writers: Any, tmp_path: Path) -> None:
    facts = open_small(writers.cifar_binary(tmp_path, "cifar10", small_set(writers))).facts
    assert facts.mean == pytest.approx((0.49137, 0.48235, 0.44667), abs=1e-5)
    assert facts.std == pytest.approx((0.24706, 0.24353, 0.26157), abs=1e-5)


def test_wrong_count_names_file_found_and_expected(writers: Any, tmp_path: Path) -> None:
    root = write(writers, "parquet", tmp_path, "cifar10", small_set(writers))
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet.*found 40 images, expected 50,000"):
        open_source(Data(name="cifar10", root=str(root)), seed=0)


def test_short_files_are_called_incomplete(writers: Any, tmp_path: Path) -> None:
    splits = small_set(writers)
    binary = writers.cifar_binary(tmp_path / "binary", "cifar10", splits)
    with pytest.raises(
        DataError, match=r"data_batch_1.bin has 24,584 bytes, expected 30,730,000: the copy is incomplete"
    ):
        open_source(Data(name="cifar10", root=str(binary)), seed=0)
    python = writers.cifar_python(tmp_path / "python", "cifar100", splits)
    with pytest.raises(DataError, match=r"expected at least 153,600,000: the copy is incomplete"):
        open_source(Data(name="cifar100", root=str(python)), seed=0)


def test_cut_files(writers: Any, tmp_path: Path) -> None:
    splits = small_set(writers)
    for layout, name in (
        ("python", "cifar-10-batches-py/data_batch_3"),
        ("binary", "cifar-10-batches-bin/test_batch.bin"),
        ("parquet", "test-00000-of-00001.parquet"),
    ):
        file = write(writers, layout, tmp_path / layout, "cifar10", splits) / name
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(DataError, match=rf"{file.name}.*copy is incomplete"):
            open_small(tmp_path / layout)


def test_wrong_label_range(writers: Any, tmp_path: Path) -> None:
    splits = small_set(writers)
    splits["test"][1][4] = 10
    for layout in ("python", "binary", "parquet"):
        root = write(writers, layout, tmp_path / layout, "cifar10", splits)
        with pytest.raises(DataError, match="image 4 has label 10, expected 0 to 9"):
            open_small(root)


def test_missing_batch(writers: Any, tmp_path: Path) -> None:
    root = writers.cifar_python(tmp_path, "cifar10", small_set(writers))
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="lacks data_batch_4"):
        open_small(root)


def test_another_order_of_classes_is_refused(writers: Any, tmp_path: Path) -> None:
    for split, (images, labels) in small_set(writers).items():
        writers.parquet(tmp_path / f"{split}.parquet", images, labels, names=list("abcdefghij"))
    with pytest.raises(DataError, match=r"classes are a, b.*expected airplane"):
        open_small(tmp_path)


def test_another_size_of_picture_is_refused(writers: Any, tmp_path: Path) -> None:
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", writers.images(20, side=16), np.arange(20) % 10)
    with pytest.raises(DataError, match=r"16 x 16 pixels.*32 x 32"):
        open_small(tmp_path)


def test_absent_set_lists_layouts_and_the_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-10-batches-py.*train\*.parquet.*does not exist.*data.download=true"):
        open_small(tmp_path / "nowhere")


def test_download_only_when_asked(writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    calls: list[str] = []

    def fake(root: str, download: bool) -> None:
        calls.append(root)
        writers.cifar_python(Path(root), "cifar10", small_set(writers))

    monkeypatch.setattr(datasets, "CIFAR10", fake)
    with pytest.raises(DataError):
        open_small(tmp_path / "set")
    assert calls == []
    for _ in range(2):  # the second time the set is there
        assert open_small(tmp_path / "set", download=True).facts.sizes["train"] == 40
    assert calls == [str(tmp_path / "set")]

    def fail(root: str, download: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"no network.*data.download=false"):
        open_small(tmp_path / "other", download=True)


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_may_not_name_anything_else(tmp_path: Path) -> None:
    path, touched = tmp_path / "batch", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"data": _Harmful(touched)}, protocol=2))
    with pytest.raises(DataError, match=r"batch was not loaded: it asks for .*expected nothing but arrays"):
        read_pickle(path)
    assert not touched.exists()
    path.write_bytes(pickle.dumps([1], protocol=2))
    with pytest.raises(DataError, match="holds a list"):
        read_pickle(path)


def test_wrong_keys(writers: Any, tmp_path: Path) -> None:
    root = writers.cifar_python(tmp_path, "cifar10", small_set(writers))
    writers.python2_pickle(root / "cifar-10-batches-py" / "test_batch", {"labels": [1], "pixels": [2]})
    with pytest.raises(DataError, match="has the keys labels, pixels, expected data and labels"):
        open_small(root)


def test_labels_that_are_no_small_numbers(writers: Any, tmp_path: Path) -> None:
    root = writers.cifar_python(tmp_path, "cifar10", small_set(writers))
    pixels = np.zeros((2, 3072), dtype=np.uint8)
    for labels in ([0, "one"], [0, -1], [0, 2**70], {"a": 1}, [[0], [1]]):
        writers.python2_pickle(root / "cifar-10-batches-py" / "test_batch", {"labels": labels, "data": pixels})
        with pytest.raises(DataError, match="test_batch: labels is (list|dict), expected a list of whole numbers"):
            open_small(root)


def test_arrays_hold_what_the_file_holds(writers: Any, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    arrays = {
        "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
        "labels": np.array([3, -1, 2**40]),
        "other": np.array([1, 2], dtype=">i4"),
    }
    writers.python2_pickle(path, arrays)
    found = read_pickle(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_arrays_of_anything_else_are_not_made(writers: Any, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    for array in (np.array([1.5]), np.array([{}], dtype=object), np.array(["a"])):
        writers.python2_pickle(path, {"data": array})
        with pytest.raises(DataError, match="batch was not loaded: it holds an array of '.*', expected whole numbers"):
            read_pickle(path)


def reduced(arguments: bytes) -> bytes:
    return b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n" + arguments + b"Rs."


def test_a_pickle_takes_no_more_memory_than_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "batch"
    # An array of 10 ** 12 bytes that is asked for, not stored: its empty stand-in is what is found.
    path.write_bytes(reduced(b"cnumpy\nndarray\n(L1000000000000L\ntU\x01b\x87"))
    assert read_pickle(path)["data"].size == 0
    path.write_bytes(b"\x80\x02(" + b"]" * 1_100_000 + b"l.")
    with pytest.raises(DataError, match="makes more than 1,000,000 objects"):
        read_pickle(path)
    with path.open("r+b") as file:
        file.truncate(20 << 30)
    with pytest.raises(DataError, match="batch: has 21,474,836,480 bytes; expected at most"):
        read_pickle(path)
    # A text that claims to be longer than the file.
    path.write_bytes(b"\x80\x02T\xff\xff\xff\x7fshort")
    with pytest.raises(DataError, match="the copy is incomplete or damaged"):
        read_pickle(path)


def test_a_set_with_a_class_in_other_places_of_its_list(writers: Any, tmp_path: Path) -> None:
    for split, (images, labels) in small_set(writers).items():
        names = class_names.CIFAR10 if split == "train" else class_names.CIFAR10[::-1]
        writers.parquet(tmp_path / f"{split}.parquet", images, labels, names=names)
    with pytest.raises(DataError, match=r"test.parquet: the classes are truck, .*expected airplane"):
        open_small(tmp_path)


def test_what_was_found_is_said(writers: Any, tmp_path: Path) -> None:
    source = open_small(writers.cifar_binary(tmp_path / "set", "cifar10", small_set(writers)))
    assert source.inventory.lines()[0] == f"data: the binary version as published in {tmp_path}/set"
    assert source.inventory.pictures == {"train": (4,) * 10, "test": (2,) * 10}
