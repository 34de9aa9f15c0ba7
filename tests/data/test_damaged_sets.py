"""Does every reader answer whatever lies on a disk with images or with one error of the engine, and nothing else?

Each example is a folder that a machine made up: whole files with some bytes changed, cut or put in between, and files
whose parts do not belong together.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from engine.data.inventory import take_inventory
from engine.data.parts import EncodedPart, Found
from engine.data.readers.cifar import find_cifar
from engine.data.readers.folder import find_folder
from engine.data.readers.parquet import find_parquet
from engine.data.readers.stl10 import find_stl10
from engine.data.readers.text_lines import text_lines
from engine.errors import DataError
from tests.data.disk_entries import ENTRIES, PICTURE, TEXTS, encoded, lay_out

pytestmark = pytest.mark.slow

_examples = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Change = tuple[str, float, bytes]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "replace", "cut", "end"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    max_size=6,
)


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Return bytes with some of them changed; places are shares of the length."""
    for how, share, new in changes:
        place = int(share * len(content))
        if how == "end":
            content = content[:place]
        else:
            gone = {"put": 0, "replace": len(new), "cut": len(new)}[how]
            content = content[:place] + (b"" if how == "cut" else new) + content[place + gone :]
    return content


def readable(find: Callable[[], Found | None]) -> bool:
    """Read all that a finder finds; tell whether there was something. Raises what is no DataError."""
    try:
        found = find()
        if found is None:
            return False
        loaded = found.load()
        for part in loaded.parts.values():
            if isinstance(part, EncodedPart):
                assert sum(1 for _ in part.pictures()) == len(part.labels)
            else:
                assert sum(map(len, part.blocks())) == len(part.labels)
            assert part.labels.dtype == np.int64
            assert len(part.labels) == 0 or 0 <= part.labels.min() <= part.labels.max() < len(loaded.class_names)
        labels = {split: part.labels for split, part in loaded.parts.items()}
        inventory = take_inventory(found.survey, loaded.class_names, labels)
        json.loads(json.dumps(inventory.to_json()))
        assert all(line.isprintable() for line in inventory.lines())
    except DataError:
        return False
    return True


@pytest.fixture
def set_folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is not there yet, and see to it that nothing is written beside it."""
    (tmp_path / "cache").mkdir(exist_ok=True)
    yield tmp_path / "set"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set"]
    assert list((tmp_path / "cache").iterdir()) == []


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@_examples
@seed(1)
@given(entries=ENTRIES, whole=st.booleans(), tiny=st.booleans())
def test_folders(set_folder: Path, entries: list[tuple[tuple[str, ...], str, bytes]], whole: bool, tiny: bool) -> None:
    root = fresh(set_folder)
    if whole:
        for split in ("train", "val"):
            for name in ("n1", "n2"):
                lay_out(root, (split, name, "a.png"), "picture", b"")
    if tiny:
        lay_out(root, ("wnids.txt",), "text", b"n1\nn2\n")
    for path, kind, content in entries:
        lay_out(root, path, kind, content)
    readable(lambda: find_folder(root))
    readable(lambda: find_parquet(root))


@_examples
@seed(2)
@given(ids=TEXTS, words=TEXTS, annotations=TEXTS, right=st.integers(0, 7))
def test_lists_of_tiny_imagenet(set_folder: Path, ids: bytes, words: bytes, annotations: bytes, right: int) -> None:
    root = fresh(set_folder)
    for name in ("n1", "n2"):
        lay_out(root, ("train", name, "images", "a.png"), "picture", b"")
        lay_out(root, ("val", "images", f"{name}.png"), "picture", b"")
    # Where all are right, the set is read.
    contents = {
        "wnids.txt": b"n1\nn2" if right & 1 else ids,
        "words.txt": b"n1\tcat\n" if right & 2 else words,
        "val/val_annotations.txt": b"n1.png\tn1\nn2.png\tn2\n" if right & 4 else annotations,
    }
    for name, content in contents.items():
        lay_out(root, tuple(name.split("/")), "text", content)
        for line in text_lines(root / name):
            assert "\n" not in line
    assert readable(lambda: find_folder(root)) or right != 7


PICTURES = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def shard(labels: list[Any], metadata: bytes | None = None, compression: str = "snappy") -> bytes:
    pictures = pyarrow.array([{"bytes": encoded(level), "path": None} for level in range(len(labels))], PICTURES)
    table = pyarrow.table({"image": pictures, "label": labels, "x": [0.5] * len(labels)})
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content, row_group_size=3, compression=compression)
    return content.getvalue()


NAMED = b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}'
SHARDS = [
    shard(labels, metadata, compression)
    for labels in ([0, 1, 0, 1, 1, 0, 0], ["a", "b", "a", "b", "b", "a", "a"])
    for metadata in (None, NAMED)
    for compression in ("none", "snappy", "zstd")
]


@_examples
@seed(3)
@given(which=st.integers(0, len(SHARDS) - 1), changes=CHANGES, footer=st.booleans())
def test_damaged_shards(set_folder: Path, which: int, changes: list[Change], footer: bool) -> None:
    root = fresh(set_folder)
    whole = SHARDS[which]
    # Half of the examples hit the metadata at the end of the file.
    start = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8 if footer else 0
    (root / "train.parquet").write_bytes(whole[:start] + changed(whole[start:], changes))
    (root / "test.parquet").write_bytes(whole)
    assert readable(lambda: find_parquet(root)) or changes
    readable(lambda: find_cifar("cifar10", root, False))


ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["a", "b"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["info", "features", "label", "names", "_type", "image"]), inner, max_size=4),
    ),
    max_leaves=12,
)
COLUMNS = st.one_of(
    st.lists(st.integers(-2, 3), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.text(max_size=2)), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.floats()), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.binary(max_size=3)), min_size=4, max_size=4),
    st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=4, max_size=4),
)
COLUMN_NAMES = st.sampled_from(["image", "img", "label", "fine_label", "a.b", "", "é", "x"])


@_examples
@seed(4)
@given(
    tables=st.lists(st.dictionaries(COLUMN_NAMES, COLUMNS, max_size=4), min_size=2, max_size=2),
    pictures=st.lists(
        st.one_of(st.none(), st.sampled_from(["gone.png", "a\0b", "../x", "/etc/passwd"])), min_size=4, max_size=4
    ),
    described=ANY_JSON,
    names=st.lists(
        st.sampled_from(["train", "test", "train-0", "train-1-of-2", "val", "valid"]), min_size=2, max_size=2
    ),
)
def test_tables_of_any_columns(
    set_folder: Path, tables: list[dict[str, Any]], pictures: list[str | None], described: Any, names: list[str]
) -> None:
    root = fresh(set_folder)
    rows = [{"bytes": None if path else PICTURE, "path": path} for path in pictures]
    for name, columns in zip(names, tables, strict=True):
        table = pyarrow.table({"image": pyarrow.array(rows, PICTURES)} | columns)
        metadata = json.dumps({"info": {"features": described}}).encode()
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": metadata}), root / f"{name}.parquet")
    readable(lambda: find_parquet(root))
    for column in tables[0]:
        readable(lambda column=column: find_parquet(root, "image", column))


@_examples
@seed(5)
@given(changes=CHANGES, cut=st.integers(0, 40), junk=st.binary(max_size=40))
def test_damaged_pickles(set_folder: Path, writers: Any, changes: list[Change], cut: int, junk: bytes) -> None:
    root = fresh(set_folder)
    splits = {split: (writers.images(3), np.arange(3)) for split in ("train", "test")}
    writers.cifar_python(root, "cifar100", splits)
    path = root / "cifar-100-python" / "train"
    whole = path.read_bytes()
    # The pixels are most of the file; the ends hold the instructions.
    path.write_bytes(changed(whole[:200], changes) + whole[200 : len(whole) - cut] + junk)
    assert readable(lambda: find_cifar("cifar100", root, False)) or changes or cut or junk
    path.write_bytes(junk)
    readable(lambda: find_cifar("cifar100", root, False))


@_examples
@seed(6)
@given(changes=CHANGES, which=st.sampled_from(["data_batch_1.bin", "test_batch.bin"]), tail=st.binary(max_size=9))
def test_damaged_binary_files_of_cifar(
    set_folder: Path, writers: Any, changes: list[Change], which: str, tail: bytes
) -> None:
    root = fresh(set_folder)
    writers.cifar_binary(root, "cifar10", {split: (writers.images(5), np.arange(5)) for split in ("train", "test")})
    path = root / "cifar-10-batches-bin" / which
    path.write_bytes(changed(path.read_bytes(), changes) + tail)
    assert readable(lambda: find_cifar("cifar10", root, False)) or changes or tail


@_examples
@seed(7)
@given(labels=st.binary(max_size=6), pixels=CHANGES, kind=st.sampled_from(["file"] * 4 + ["pipe", "sparse", "gone"]))
def test_damaged_files_of_stl10(set_folder: Path, labels: bytes, pixels: list[Change], kind: str) -> None:
    root = fresh(set_folder)
    for split in ("train", "test"):
        (root / f"{split}_X.bin").write_bytes(changed(bytes(3 * 96 * 96 * len(labels)), pixels))
        (root / f"{split}_y.bin").write_bytes(labels)
    if kind != "file":
        (root / "test_y.bin").unlink()
        lay_out(root, ("test_y.bin",), kind, b"")
    readable(lambda: find_stl10(root, False))
