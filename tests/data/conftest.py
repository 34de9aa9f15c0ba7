"""What do the tests of the data room share: a cache of their own, a set in folders or a store, and writers."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, ClassVar

import numpy as np
import pyarrow
import pyarrow.fs
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import engine.data.remote.copies
from engine.data.remote.uris import Place
from tests.data.parquet_tables import Table
from tests.data.remote_sets import MemoryStore, content


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests' cache entries apart from the user's."""
    torch.set_num_threads(1)
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(folder))
    return folder


class _Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and an old NumPy wrote: byte strings, and the name numpy.core."""

    write: Any
    memoize: Any
    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        content = value if isinstance(value, bytes) else value.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = "numpy.core.multiarray" if value.__name__ == "_reconstruct" else value.__module__
        self.write(f"c{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_string
    dispatch[str] = save_string
    dispatch[BuiltinFunctionType] = save_global
    dispatch[type] = save_global


class Writers:
    """Writers of small data sets; images are uint8 [n, 3, H, W]."""

    @staticmethod
    def images(number: int, side: int = 32, seed: int = 0, channels: int = 3) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (number, channels, side, side), dtype=np.uint8)

    @staticmethod
    def png(image: np.ndarray, kind: str = "PNG") -> bytes:
        content = io.BytesIO()
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(content, format=kind)
        return content.getvalue()

    @staticmethod
    def python2_pickle(path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            _Python2Pickler(file, protocol=2).dump(content)

    @classmethod
    def cifar_python(cls, root: Path, name: str, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
        for split, (images, labels) in splits.items():
            data = images.reshape(len(images), -1)
            if name == "cifar100":
                content = {"fine_labels": labels.tolist(), "coarse_labels": [0] * len(labels), "data": data}
                cls.python2_pickle(root / "cifar-100-python" / split, content)
                continue
            files = [f"data_batch_{n}" for n in range(1, 6)] if split == "train" else ["test_batch"]
            for file, rows in zip(files, np.array_split(np.arange(len(labels)), len(files)), strict=True):
                content = {"batch_label": file, "labels": labels[rows].tolist(), "data": data[rows]}
                cls.python2_pickle(root / "cifar-10-batches-py" / file, content)
        return root

    @staticmethod
    def cifar_binary(root: Path, name: str, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
        folder = root / ("cifar-100-binary" if name == "cifar100" else "cifar-10-batches-bin")
        folder.mkdir(parents=True)
        for split, (images, labels) in splits.items():
            columns = [labels[:, None], images.reshape(len(images), -1)]
            if name == "cifar100":
                columns.insert(0, 19 - labels[:, None] % 20)  # the coarse label comes first
                files = [f"{split}.bin"]
            else:
                files = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
            records = np.concatenate(columns, axis=1).astype(np.uint8)
            for file, rows in zip(files, np.array_split(records, len(files)), strict=True):
                (folder / file).write_bytes(rows.tobytes())
        return root

    @classmethod
    def parquet(
        cls,
        path: Path,
        images: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        image_column: str = "img",
        label_column: str = "label",
        names: Sequence[str] | None = None,
        contents: list[dict[str, Any]] | None = None,
        extra: dict[str, list[int]] | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = contents or [{"bytes": cls.png(image), "path": None} for image in images]
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        columns = {image_column: pyarrow.array(rows, kind), label_column: pyarrow.array(list(map(int, labels)))}
        table = pyarrow.table({**columns, **(extra or {})})
        if names is not None:
            features = {image_column: {"_type": "Image"}, label_column: {"_type": "ClassLabel", "names": list(names)}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return path

    @classmethod
    def folder(
        cls, root: Path, split: str, classes: dict[str, np.ndarray], inside: str = "", kind: str = "PNG"
    ) -> Path:
        for name, images in classes.items():
            folder = root / split / name / inside
            folder.mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images):
                (folder / f"{name}_{number}.{kind.lower()}").write_bytes(cls.png(image, kind))
        return root


@pytest.fixture
def writers() -> type[Writers]:
    """Give the tests the writers of every format."""
    return Writers


@pytest.fixture
def table(writers: Any) -> Table:
    """Give the tests a writer of Parquet files with any columns."""
    return Table(writers)


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    """The folder of a set of two classes; files whose sets have to be other ones have a `root` of their own."""
    for place, split in enumerate(("train", "val")):
        writers.folder(tmp_path / "set", split, {name: writers.images(5, 8, place) for name in ("a", "b")})
    return tmp_path / "set"


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The folder `root` as an object store, under any URI."""
    handler = MemoryStore({f"bucket/set/{name}": held for name, held in content(root).items()})
    place = Place(pyarrow.fs.PyFileSystem(handler), "bucket/set")
    monkeypatch.setattr(engine.data.remote.copies, "connect", lambda uri: place)
    return handler


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real images, or skip."""
    folder = Path(os.environ.get("LOCAL_LEARNING_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
    if not (folder / "cifar10" / "test.parquet").is_file():
        pytest.skip(f"no real images in {folder}; set LOCAL_LEARNING_TEST_DATA to their folder")
    return folder.resolve()
