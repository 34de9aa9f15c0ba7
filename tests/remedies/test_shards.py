"""Does what a refusal of shards, published sets, addresses or the cache says lead to a training on all images?"""

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

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or a word that does it ("{0}" is its first group), training images."""

FIRST, SECOND = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"


def every(name: str) -> str:
    """Return the command that puts one of the files beside the set into the place of all shards."""
    return f"for shard in *.parquet; do cp .{name}.parquet $shard; done"


# What a shell does to two shards of 4 training images and one of 4 test images.
SHARDS: list[tuple[str, list[Remedy]]] = [
    ("rm test.parquet", [(r"expected (test)\*", "cp .plain.parquet {0}.parquet", 8)]),
    (f"rm {SECOND}", [(r" (train-\S+) is missing; fetch the missing files", "cp .plain.parquet {0}", 8)]),
    (
        f"mv {FIRST} train-00000-of-00002-0123456789abcdef.parquet; rm {SECOND}",
        [(r" (train-\S+) is missing; fetch the missing files", "cp .plain.parquet {0}", 8)],
    ),
    ("cp .plain.parquet train.parquet", [("keep the files of one version", "rm train.parquet", 8)]),
    (
        f"mv {FIRST} train-a.parquet; mv {SECOND} train-b.parquet",
        [(r"or name the parts .* like (\S+)", "mv train-a.parquet {0}; mv train-b.parquet " + SECOND, 8)],
    ),
    (
        f"mv {SECOND} train-00005-of-00002.parquet",
        [("fetch the files again", f"mv train-00005-of-00002.parquet {SECOND}", 8)],
    ),
    (
        f"mv {FIRST} train_1.parquet; mv {SECOND} train_3.parquet",
        [
            (r"none with number (\d); fetch the missing files", "cp .plain.parquet train_{0}.parquet", 12),
            ("number those that are there without a gap", "mv train_3.parquet train_2.parquet", 8),
        ],
    ),
    (
        "mkdir a b; cp *.parquet a; mv *.parquet b",
        [("set data.root to one of them", "data.root={root}/a", 8)],
    ),
    (
        "ln -s gone train-00002-of-00003.parquet",
        [("or remove it", "rm train-00002-of-00003.parquet", 8)],
    ),
    (every("pictures"), [(r"pictures, (\w+), \w+, .*set data.image_column", "data.image_column={0}", 8)]),
    (every("labels"), [(r"each of (\w+), \w+ could.*set data.label_column", "data.label_column={0}", 8)]),
    (every("fractions"), [(r"set data.label_column to another column \(.*(kind)", "data.label_column={0}", 8)]),
    (every("no_picture"), [("expected a struct with a `bytes` child", every("plain"), 8)]),
    (every("twice"), [("expected each name once", every("plain"), 8)]),
    (
        "cp .text.parquet test.parquet",
        [
            ("write the files anew", every("text"), 8),
            ("or set data.label_column", "data.label_column=kind", 8),
        ],
    ),
    (
        f"{every('cat_dog')}; cp .cat_wolf.parquet test.parquet",
        [("expected the same names in every shard", "cp .cat_dog.parquet test.parquet", 8)],
    ),
    (
        f"cp .cat_dog.parquet {FIRST}; cp .dog_cat.parquet {SECOND}",
        [("store the class names in its `huggingface` metadata", "cp .cat_dog.parquet test.parquet", 8)],
    ),
    (
        every("gap"),
        [
            ("renumber them", every("plain"), 8),
            ("write them as text", every("text"), 8),
            ("or store the class names", every("gap_named"), 8),
        ],
    ),
    (every("alike"), [("write them alike", every("text"), 8)]),
    (
        f"{every('text')}; cp .alike.parquet test.parquet",
        [("correct its labels, or remove its rows", "cp .text.parquet test.parquet", 8)],
    ),
    (every("empty_row"), [("fill them", every("plain"), 8), ("or remove the rows", every("short"), 6)]),
    (f"cp .empty.parquet {SECOND}", [("expected a label in each", f"cp .plain.parquet {SECOND}", 8)]),
    (f"head -c 500 .plain.parquet > {FIRST}", [("fetch it again", f"cp .plain.parquet {FIRST}", 8)]),
    (every("cat_cat"), [("which of the two labels", every("cat_dog"), 8)]),
    (every("outside"), [(r"names '(\S+)', which is not there, .* path relative", "cp .one.png {0}", 8)]),
    (every("one_class"), [("Expected images of two classes or more", every("plain"), 8)]),
    (
        "cp .unlabelled.parquet test.parquet",
        [(r"no (validation)\*.parquet to test on", "cp .plain.parquet {0}.parquet", 8)],
    ),
    (f"cp .binary.parquet {SECOND}", [("expected pictures in both, alike", f"cp .plain.parquet {SECOND}", 8)]),
    (f"cp .large.parquet {SECOND}", [("when sizes vary, (data.image_size) is required", "{0}=8", 8)]),
    (every("damaged"), [("For each: replace", every("plain"), 8), ("or remove it", every("short"), 6)]),
]
COLUMNS: list[tuple[str, list[Remedy]]] = [
    ("data.name=parquet data.image_column=photo", [(r"no such column .*: (\w+) \(struct", "data.image_column={0}", 8)]),
    ("data.name=parquet data.label_column=class", [(r"no such column .*(label) \(int64", "data.label_column={0}", 8)]),
    ("data.name=cifar10", [(r"read with .* or (data.name=parquet)", "{0}", 8)]),
]
CIFAR10 = "cifar10/cifar-10-batches-py"
# Published sets of 20 training images each, whose counts are not checked; ".whole" is what would be fetched.
PUBLISHED: list[tuple[str, str, str]] = [
    ("cifar10", f"rm {CIFAR10}/data_batch_3", "fetch the set again"),
    ("cifar10", f"head -c 99 .whole/{CIFAR10}/test_batch > {CIFAR10}/test_batch", "fetch it again"),
    ("cifar10", f"cp .list {CIFAR10}/test_batch", "fetch the file again"),
    ("binary", "head -c 99 .whole/stl10/stl10_binary/test_X.bin > binary/cifar-10-batches-bin/test_batch.bin", "fetch"),
    ("binary", "head -c 3073 /dev/zero | tr '\\0' '\\143' > binary/cifar-10-batches-bin/test_batch.bin", "is damaged"),
    ("stl10", "rm stl10/stl10_binary/test_X.bin", "fetch the missing files"),
    ("stl10", "truncate -s 3 stl10/stl10_binary/test_X.bin", "fetch the file again"),
    ("stl10", ": > stl10/stl10_binary/test_y.bin", "fetch the file again"),
    ("svhn", "rm svhn/test_32x32.mat", "fetch the missing file"),
    ("svhn", "truncate -s 900 svhn/test_32x32.mat", "fetch it again"),
    ("stl10", "rm -r stl10", "Correct data.root"),
]
# Addresses and the folder of the cache; {root} is the set of shards.
PLACES: list[tuple[str, str, list[Remedy]]] = [
    (
        "data.name=parquet data.root=file://{root}/far",
        "true",
        [("check that it exists", "mkdir far; cp *.parquet far", 8)],
    ),
    (
        "data.name=parquet data.root=file://{root}/test.parquet",
        "true",
        [("the folder that holds it", "data.root=file://{root}", 8)],
    ),
    (
        "data.name=parquet data.root=ftp://host{root}",
        "true",
        [(r"begins with one of .*(file://)", "data.root={0}{root}", 8)],
    ),
    (
        "data.name=parquet data.root=file://me:secret@{root}",
        "true",
        [("take it out of the URI", "data.root=file://{root}", 8)],
    ),
    (
        "data.name=parquet data.root=file://{root}/a%zz",
        "true",
        [("give the path of the folder instead, without file://", "data.root={root}", 8)],
    ),
    (
        "data.name=cifar10 data.download=true data.root=file://{root}",
        "true",
        [("or set (data.download=false)", "{0} data.name=parquet", 8)],
    ),
    (
        "data.name=parquet LOCAL_LEARNING_CACHE={root}/test.parquet",
        "true",
        [("set (LOCAL_LEARNING_CACHE) to another folder", "{0}={root}/../other", 8)],
    ),
    (
        "data.name=parquet",
        "mkdir ../cache; ln -s /nowhere ../cache/index",
        [("remove the link", "rm ../cache/index", 8)],
    ),
    (
        "data.name=parquet data.root=file://{root}",
        "mkdir ../cache; ln -s /nowhere ../cache/remote",
        [("remove the link", "rm ../cache/remote", 8)],
    ),
    (
        "data.name=parquet data.root=file://{root} LOCAL_LEARNING_CACHE={root}/test.parquet",
        "true",
        [("set (LOCAL_LEARNING_CACHE) to another folder", "{0}={root}/../other", 8)],
    ),
]


def png(number: int, side: int = 8) -> bytes:
    """Return an encoded picture."""
    content = io.BytesIO()
    Image.new("RGB", (side, side), (number, 0, 0)).save(content, "PNG")
    return content.getvalue()


def table(columns: dict[str, Any], names: list[str] | None = None) -> pyarrow.Table:
    """Return a table with a column `image`, unless it is among the columns, and the names of the classes."""
    pictures = [{"bytes": png(number), "path": None} for number in range(len(next(iter(columns.values()))))]
    made = pyarrow.table({"image": pictures, **columns})
    features = {"label": {"_type": "ClassLabel", "names": names}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})} if names else {})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two training shards and one of tests, and other files beside it that hide behind a dot."""
    root = tmp_path_factory.mktemp("sets") / "shards"
    root.mkdir()
    label = [0, 1, 0, 1]
    known = {"label": label, "kind": label}
    binary = [png(number) for number in range(4)]
    text = ["cat", "dog", "cat", "dog"]
    repeated = table(known)
    held = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    files = {
        "plain": table(known),
        "short": table({"label": [0, 1, 0]}),
        "pictures": table({"label": label, "photo": binary, "mask": binary}).drop(["image"]),
        "labels": table({"first": label, "second": label}),
        "fractions": table({"label": [0.5, 1.0, 0.5, 1.0], "kind": label}),
        "no_picture": table(known).drop(["image"]),
        "twice": repeated.append_column("label", repeated["kind"]),
        "text": table({"label": text, "kind": label}),
        "cat_dog": table(known, ["cat", "dog"]),
        "dog_cat": table(known, ["dog", "cat"]),
        "cat_wolf": table(known, ["cat", "wolf"]),
        "cat_cat": table(known, ["cat", "cat"]),
        "gap": table({"label": [0, 2, 0, 2]}),
        "gap_named": table({"label": [0, 2, 0, 2]}, ["cat", "owl", "dog"]),
        "alike": table({"label": ["cat", "Cat", "cat", "dog"]}),
        "empty_row": table({"label": [0, 1, 0, None]}),
        "empty": table({"label": pyarrow.array([None] * 4, pyarrow.int64())}),
        "unlabelled": table({"label": [-1] * 4}),
        "one_class": table({"label": ["cat"] * 4}),
        "binary": table({"image": binary, "label": label}),
        "large": table({"image": [{"bytes": png(9, 12), "path": None}] * 4, "label": label}),
        "damaged": table(
            {"image": [{"bytes": b"x", "path": None}, *[{"bytes": png(1), "path": None}] * 3], "label": label}
        ),
        "outside": table({"image": pyarrow.array([{"path": "one.png"}] * 4, held), "label": label}),
    }
    for name, made in files.items():
        pyarrow.parquet.write_table(made, root / f".{name}.parquet")
    for name in (FIRST, SECOND, "test.parquet"):
        shutil.copy(root / ".plain.parquet", root / name)
    (root / ".one.png").write_bytes(png(3))
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small sets in the layouts of published ones, 20 training images each, and a copy of all in ".whole"."""
    savemat = pytest.importorskip("scipy.io").savemat
    root = tmp_path_factory.mktemp("sets") / "published"
    whole = root / ".whole"
    for folder in (CIFAR10, "binary/cifar-10-batches-bin", "stl10/stl10_binary", "svhn"):
        (whole / folder).mkdir(parents=True)
    labels = np.arange(4)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {"labels": labels.tolist(), "data": np.zeros((4, 3072), np.uint8)}
        (whole / CIFAR10 / name).write_bytes(pickle.dumps(content, protocol=4))
        records = np.concatenate([labels[:, None], content["data"]], axis=1).astype(np.uint8)
        (whole / "binary/cifar-10-batches-bin" / f"{name}.bin").write_bytes(records.tobytes())
    for split in ("train", "test"):
        labels = np.arange(20) % 10
        (whole / "stl10/stl10_binary" / f"{split}_X.bin").write_bytes(bytes(20 * 3 * 96 * 96))
        (whole / "stl10/stl10_binary" / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        images = np.zeros((32, 32, 3, 20), np.uint8)
        savemat(whole / "svhn" / f"{split}_32x32.mat", {"X": images, "y": labels[:, None].astype(np.uint8) + 1})
    shutil.copytree(whole, root, dirs_exist_ok=True)
    (root / ".list").write_bytes(pickle.dumps([1, 2], protocol=4))
    return root


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in SHARDS])
def test_shards(before: str, remedies: list[Remedy], shards: Path, repair: Callable[..., None]) -> None:
    repair(shards, "data.name=parquet", before, remedies)


@pytest.mark.parametrize(("words", "remedies"), [pytest.param(*row, id=row[0]) for row in COLUMNS])
def test_columns_and_names(words: str, remedies: list[Remedy], shards: Path, repair: Callable[..., None]) -> None:
    repair(shards, words, "true", remedies)


@pytest.mark.parametrize(
    ("words", "before", "remedies"), [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in PLACES]
)
def test_addresses_and_the_cache(
    words: str, before: str, remedies: list[Remedy], shards: Path, repair: Callable[..., None]
) -> None:
    repair(shards, words, before, remedies)


@pytest.mark.parametrize(("name", "before", "says"), [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in PUBLISHED])
def test_published_sets(name: str, before: str, says: str, published: Path, repair: Callable[..., None]) -> None:
    words = f"data.name={name.replace('binary', 'cifar10')} data.root={{root}}/{name}"
    repair(published, words, before, [(says, f"rm -rf {name}; cp -r .whole/{name} .", 20)], strict_counts=False)
