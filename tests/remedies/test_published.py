"""Does what a refusal of a published set says lead to a training on all of its images?

Small sets stand for the published ones, whose numbers of images are not those of the real ones here.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from engine.errors import DataError, InputError

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
LAST = "data_batch_5"
FETCHED = "rm -rf {name}; cp -r .whole/{name} ."
# A set in its folder, what a shell does to it, and what the message says before it is fetched again.
SETS: list[tuple[str, str, str]] = [
    *(
        ("cifar10", f"cp .spare/{damage} cifar10/{PYTHON}/{LAST}", says)
        for damage, says in (
            ("keys", "has the keys .* fetch the file again"),
            ("labels", "labels is .* fetch the file again"),
            ("shape", "data is .* fetch the file again"),
            ("fractions", "holds an array of .* fetch the file again"),
            ("code", "asks for .* fetch the file again"),
            ("more", "found 21 images, expected 20; .* fetch it again"),
            ("unbalanced", r"found \d to \d images per class, .* fetch it again"),
            ("outside", r"has label 12, .* fetch it again"),
        )
    ),
    ("cifar10", f": > cifar10/{PYTHON}/{LAST}", "the copy is incomplete; fetch the file again"),
    ("shards", "cp .spare/unlabelled.parquet shards/test.parquet", "no row has a label, .* fetch the file again"),
    ("stl10", "echo x >> stl10/stl10_binary/train_y.bin", "this is another file; fetch it again"),
    ("stl10", "echo x >> stl10/stl10_binary/train_X.bin", "this is another file; fetch it again"),
    (
        "stl10",
        "(head -c 19 .whole/stl10/stl10_binary/train_y.bin; printf '\\001') > stl10/stl10_binary/train_y.bin",
        r"found \d to \d images per class, .* fetch it again",
    ),
    (
        "stl10",
        "(head -c 19 .whole/stl10/stl10_binary/train_y.bin; printf '\\143') > stl10/stl10_binary/train_y.bin",
        "has label 98, .* fetch it again",
    ),
    *(
        ("svhn", f"cp .spare/{damage}.mat svhn/train_32x32.mat", says)
        for damage, says in (
            ("zero", "found the label 0, .* fetch it again"),
            ("eleven", "has label 11, .* fetch it again"),
            ("shape", r"X is uint8 .* fetch it again"),
            ("fewer", "found 10 images, expected 20; .* fetch it again"),
        )
    ),
]
SHARDS: list[tuple[str, list[Remedy]]] = [
    (
        "cp .named.parquet train.parquet; cp .named.parquet test.parquet",
        [(r"a set of your own is read with (data\.name=parquet)", "{0}", 20)],
    ),
    (
        "rm test.parquet",
        [(r"expected (test)\*\.parquet beside it", "cp .test.parquet {0}.parquet", 20)],
    ),
    (
        "cp .more.parquet train.parquet",
        [(r"a set of your own is read with .* or (data\.name=parquet)", "{0}", 21)],
    ),
]


def batch(labels: np.ndarray) -> dict[str, Any]:
    """Return what one of CIFAR's files holds."""
    return {"labels": labels.tolist(), "data": np.zeros((len(labels), 3072), np.uint8)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of 20 training and 10 test images in 10 classes, a copy of all in ".whole", and damaged files."""
    savemat = pytest.importorskip("scipy.io").savemat
    root = tmp_path_factory.mktemp("sets") / "published"
    whole, spare = root / ".whole", root / ".spare"
    for folder in (whole / "cifar10" / PYTHON, whole / "shards", whole / "stl10/stl10_binary", whole / "svhn", spare):
        folder.mkdir(parents=True)
    labels = np.arange(20) % 10

    def write(path: Path, content: object) -> None:
        path.write_bytes(pickle.dumps(content, protocol=4))

    for number in range(5):
        write(whole / f"cifar10/{PYTHON}/data_batch_{number + 1}", batch(labels[4 * number : 4 * number + 4]))
    write(whole / f"cifar10/{PYTHON}/test_batch", batch(labels[:10]))
    last = batch(labels[16:])
    write(spare / "keys", {"labels": last["labels"], "pixels": last["data"]})
    write(spare / "labels", {**last, "labels": {"a": 1}})
    write(spare / "shape", {**last, "data": last["data"].reshape(8, 1536)})
    write(spare / "fractions", {**last, "data": last["data"].astype(np.float64)})
    write(spare / "many", {**last, "more": list(range(1000))})
    write(spare / "code", {**last, "labels": Path})
    write(spare / "more", batch(np.append(labels[16:], 0)))
    write(spare / "unbalanced", batch(np.zeros(4, np.int64)))
    write(spare / "outside", batch(np.full(4, 12)))
    for split, number in (("train", 20), ("test", 10)):
        shard(whole / "shards" / f"{split}.parquet", labels[:number])
        (whole / "stl10/stl10_binary" / f"{split}_X.bin").write_bytes(bytes(number * 3 * 96 * 96))
        (whole / "stl10/stl10_binary" / f"{split}_y.bin").write_bytes((labels[:number] + 1).astype(np.uint8).tobytes())
    shard(spare / "unlabelled.parquet", np.full(10, -1))

    def write_mat(path: Path, stored: np.ndarray, side: int = 32) -> None:
        images = np.zeros((side, side, 3, len(stored)), np.uint8)
        savemat(path, {"X": images, "y": stored[:, None].astype(np.uint8)})

    write_mat(whole / "svhn/train_32x32.mat", labels + 1)
    write_mat(whole / "svhn/test_32x32.mat", labels[:10] + 1)
    write_mat(spare / "zero.mat", labels)
    write_mat(spare / "eleven.mat", np.append(labels[1:] + 1, 11))
    write_mat(spare / "shape.mat", labels + 1, 16)
    write_mat(spare / "fewer.mat", labels[:10] + 1)
    shutil.copytree(whole, root, dirs_exist_ok=True)
    return root


def shard(path: Path, labels: np.ndarray, names: list[str] | None = None) -> None:
    """Write a shard of black pictures, and perhaps the names of their classes."""
    content = io.BytesIO()
    Image.new("RGB", (32, 32)).save(content, "PNG")
    pictures = [{"bytes": content.getvalue(), "path": None}] * len(labels)
    table = pyarrow.table({"img": pictures, "label": labels})
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect as many images as the small sets have."""
    for module in ("cifar", "stl10", "svhn"):
        monkeypatch.setattr(f"engine.data.readers.{module}.EXPECTED", {"train": 20, "test": 10})


@pytest.mark.parametrize(("name", "before", "says"), [pytest.param(*row, id=f"{row[1]} {row[2]}") for row in SETS])
def test_what_is_fetched_again(name: str, before: str, says: str, sets: Path, repair: Callable[..., None]) -> None:
    words = f"data.name={name.replace('shards', 'cifar10')} data.root={{root}}/{name}"
    repair(sets, words, before, [(says, FETCHED.format(name=name), 20)])


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in SHARDS])
def test_shards(before: str, remedies: list[Remedy], sets: Path, tmp_path: Path, repair: Callable[..., None]) -> None:
    root = tmp_path / "shards"
    shutil.copytree(sets / "shards", root)
    shutil.copy(root / "test.parquet", root / ".test.parquet")
    shard(root / ".more.parquet", np.arange(21) % 10)
    shard(root / ".named.parquet", np.arange(20) % 10, [f"class {number}" for number in range(10)])
    repair(root, "data.name=cifar10", before, remedies)


def test_a_download_that_fails(
    sets: Path, opened: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def fail(root: str, download: bool) -> None:
        raise OSError("no network")

    def fetch(root: str, download: bool) -> None:
        shutil.copytree(sets / "cifar10", root, dirs_exist_ok=True)

    words = ["data.name=cifar10", "data.download=true"]
    for folder in ("one", "two"):
        monkeypatch.setattr(datasets, "CIFAR10", fail)
        root = tmp_path / folder / "set"
        with pytest.raises(DataError, match="check the network, or copy the files there and set data.download=false"):
            opened(root, words)
        if folder == "one":
            monkeypatch.setattr(datasets, "CIFAR10", fetch)
            assert opened(root, words) == 20
        else:
            fetch(str(root), download=False)
            assert opened(root, [words[0], "data.download=false"]) == 20


def test_a_set_that_is_not_there(
    sets: Path, opened: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    monkeypatch.setattr(
        datasets, "CIFAR10", lambda root, download: shutil.copytree(sets / "cifar10", root, dirs_exist_ok=True)
    )
    root = tmp_path / "one" / "set"
    with pytest.raises(DataError, match="Correct data.root or set data.download=true"):
        opened(root, ["data.name=cifar10"])
    assert opened(root, ["data.name=cifar10", f"data.root={sets / 'cifar10'}"]) == 20
    assert opened(root, ["data.name=cifar10", "data.download=true"]) == 20


def test_a_download_into_an_address(sets: Path, opened: Callable[..., int], tmp_path: Path) -> None:
    words = ["data.name=cifar10", "data.download=true", f"data.root={(sets / 'cifar10').as_uri()}"]
    root = tmp_path / "one" / "set"
    with pytest.raises(InputError, match="give a folder, or set data.download=false"):
        opened(root, words)
    assert opened(root, [*words[:2], f"data.root={sets / 'cifar10'}"]) == 20
    assert opened(root, [words[0], "data.download=false", words[2]]) == 20


def test_a_file_that_makes_too_much(sets: Path, repair: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.readers.pickles._MOST_OPERATIONS", 200)
    again = ("makes more than 200 objects, .* fetch the file again", FETCHED.format(name="cifar10"), 20)
    repair(sets, "data.name=cifar10 data.root={root}/cifar10", f"cp .spare/many cifar10/{PYTHON}/{LAST}", [again])
