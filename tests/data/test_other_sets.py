"""Are SVHN, STL-10, digits and synthetic images read (or made) as documented?"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Source, open_source
from engine.data.remote.download import download
from engine.errors import DataError, RecipeError
from engine.recipes.data import Data


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


def write_svhn(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    io = pytest.importorskip("scipy.io")
    root.mkdir(exist_ok=True)
    for split in ("train", "test"):
        content = {"X": np.ascontiguousarray(images.transpose(2, 3, 1, 0)), "y": labels[:, None].astype(np.uint8)}
        io.savemat(root / f"{split}_32x32.mat", content)
    return root


def open_small(name: str, root: Path, **fields: Any) -> Source:
    recipe = Data(**{"name": name, "root": str(root), "batch_size": 10, **fields})
    return open_source(recipe, seed=0, strict_counts=False)


def test_svhn_axes_and_label_ten(writers: Any, tmp_path: Path) -> None:
    images, labels = writers.images(20), np.arange(20) % 10 + 1
    source = open_small("svhn", write_svhn(tmp_path, images, labels))
    found_images, found_labels = everything(source, "train")
    np.testing.assert_array_equal(found_images, images)
    np.testing.assert_array_equal(found_labels, labels % 10)
    assert source.facts.mean == (0.5, 0.5, 0.5)
    assert source.facts.class_names[0] == "0"


def test_svhn_errors(writers: Any, tmp_path: Path) -> None:
    images, labels = writers.images(20), np.arange(20) % 10 + 1
    root = write_svhn(tmp_path / "set", images, labels)
    with pytest.raises(DataError, match=r"train_32x32.mat: found 20 images, expected 73,257"):
        open_source(Data(name="svhn", root=str(root), batch_size=10), seed=0)
    file = root / "test_32x32.mat"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5000])
    with pytest.raises(DataError, match=r"test_32x32.mat .*copy is incomplete"):
        open_small("svhn", root)
    file.unlink()
    with pytest.raises(DataError, match=r"lacks test_32x32.mat"):
        open_small("svhn", root)
    with pytest.raises(DataError, match="found the label 0"):
        open_small("svhn", write_svhn(tmp_path / "zero", images, labels - 1))


def test_svhn_is_downloaded_without_being_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda url, root, name, md5: fetched.append(name))
    monkeypatch.setattr("torchvision.datasets.SVHN.__init__", lambda *arguments, **options: pytest.fail("read"))
    download("svhn", tmp_path / "set")
    assert fetched == ["train_32x32.mat", "test_32x32.mat"]


def write_stl10(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return root


def test_stl10_planes_are_stored_column_by_column(writers: Any, tmp_path: Path) -> None:
    images, labels = writers.images(20, side=96), np.arange(20) % 10
    root = write_stl10(tmp_path, images, labels)
    found_images, found_labels = everything(open_small("stl10", root), "test")
    np.testing.assert_array_equal(found_images, images)
    np.testing.assert_array_equal(found_labels, labels)


def test_stl10_errors(writers: Any, tmp_path: Path) -> None:
    images, labels = writers.images(20, side=96), np.arange(20) % 10
    root = write_stl10(tmp_path / "set", images, labels)
    with pytest.raises(DataError, match=r"train_y.bin has 20 bytes, expected 5,000"):
        open_source(Data(name="stl10", root=str(root), batch_size=10), seed=0)
    file = root / "stl10_binary" / "test_X.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_X.bin has 552,959 bytes, expected 552,960: the copy is incomplete"):
        open_small("stl10", root)
    (root / "stl10_binary" / "train_y.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"train_y.bin is empty: the copy is incomplete"):
        open_small("stl10", root)
    with pytest.raises(DataError, match="has label 255, expected 0 to 9"):
        open_small("stl10", write_stl10(tmp_path / "zero", images, labels - 1))


def test_fixed_sets_honour_the_image_size(writers: Any, tmp_path: Path) -> None:
    root = write_stl10(tmp_path, np.full((20, 3, 96, 96), 77, dtype=np.uint8), np.arange(20) % 10)
    source = open_small("stl10", root, image_size=48, resize_size=56)
    assert source.facts.image_shape == (3, 48, 48)
    for split in ("train", "test"):
        assert everything(source, split)[0].shape == (20, 3, 48, 48)
        assert (everything(source, split)[0] == 77).all()


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    source = open_source(Data(name="digits", batch_size=100), seed=0)
    expected = datasets.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    for split, chosen in (("train", order[:500]), ("test", order[500:])):
        images, labels = everything(source, split)
        np.testing.assert_array_equal(images[:, 0], (expected.images[chosen] * 15).astype(np.uint8))
        np.testing.assert_array_equal(labels, expected.target[chosen])
    facts = source.facts
    assert (facts.image_shape, facts.sizes, facts.num_classes) == ((1, 8, 8), {"train": 500, "test": 1297}, 10)
    values = expected.images[order[:500]] * 15 / 255
    assert facts.mean == pytest.approx((values.mean(),), abs=1e-12)
    assert facts.std == pytest.approx((values.std(),), abs=1e-12)


def test_digits_can_be_enlarged() -> None:
    small = open_source(Data(name="digits", batch_size=100), seed=0)
    large = open_source(Data(name="digits", batch_size=100, image_size=32), seed=0)
    assert large.facts.image_shape == (1, 32, 32)
    assert large.facts.mean == pytest.approx(small.facts.mean, abs=0.02)
    assert large.facts.fingerprint != small.facts.fingerprint


def synthetic(**fields: Any) -> Source:
    return open_source(Data(name="synthetic", **({"num_classes": 5, "batch_size": 16} | fields)), seed=0)


def test_synthetic_images_are_a_function_of_the_subset_seed() -> None:
    first, again, other = synthetic(), synthetic(), synthetic(subset_seed=1)
    assert first.facts.fingerprint == again.facts.fingerprint != other.facts.fingerprint
    np.testing.assert_array_equal(first.batch(3, 2).images, again.batch(3, 2).images)
    assert (everything(first, "test")[0] != everything(other, "test")[0]).any()
    assert first.facts.sizes == {"train": 1024, "test": 256}
    assert first.facts.image_shape == (3, 32, 32)


def test_synthetic_classes_can_be_told_apart() -> None:
    source = synthetic(image_size=16)
    images, labels = everything(source, "train")
    centres = np.stack([images[labels == label].mean(axis=0) for label in range(5)])
    test_images, test_labels = everything(source, "test")
    distances = ((test_images[:, None] - centres) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == test_labels).mean() > 0.95
    assert len(np.unique(test_images.reshape(len(test_images), -1), axis=0)) == len(test_images)


def test_synthetic_set_of_the_size_of_imagenet_is_not_held() -> None:
    source = synthetic(num_classes=1000, synthetic_images=1_281_167, image_size=224)
    batch = source.batch(0, 80_000)
    assert batch.images.shape == (16, 3, 224, 224)
    np.testing.assert_array_equal(batch.labels, batch.indices % 1000)


def test_fields_that_do_not_go_together(tmp_path: Path) -> None:
    for fields, words in (
        ({"name": "digits", "resize_size": 10}, "needs data.image_size"),
        ({"name": "digits", "resize_size": 10, "image_size": 16}, "smaller than data.image_size=16"),
        ({"name": "digits", "label_column": "label"}, "for data.name=parquet and identities only"),
        ({"name": "folder", "image_column": "image"}, "data.image_column is for data.name=parquet and identities only"),
        ({"name": "synthetic", "num_classes": 4, "resize_size": 40, "image_size": 32}, "no meaning"),
        ({"name": "folder", "root": str(tmp_path), "download": True}, "can be downloaded"),
        ({"name": "digits", "download": True}, "leave it out"),
    ):
        with pytest.raises(RecipeError, match=words):
            open_source(Data(**fields), seed=0)


def test_a_server_that_accepts_a_download_and_stays_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.remote.uris.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getdefaulttimeout", lambda: 77.0)
    restored: list[float | None] = []
    ordinary = socket.setdefaulttimeout
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/train_32x32.mat"
        monkeypatch.setattr("torchvision.datasets.SVHN.split_list", {"train": (address, "train_32x32.mat", "0" * 32)})
        monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: (restored.append(seconds), ordinary(seconds)))
        try:
            with pytest.raises(
                DataError, match=r"^downloading svhn into .* failed \(.*timed out.*check the network.*$"
            ):
                download("svhn", tmp_path / "set")
        finally:
            ordinary(None)
    assert restored == [0.2, 77.0]
